// One shard, driven as a reactor drives it: start what has come free, end the turn, sleep by epoll until the eventfd is
// signalled, poll.
import Base
import CReactor
import Glibc
import Storage

/// A shard with its loop. One thread.
final class Reactor {
    let shard: any BackendShard
    private let epoll = epoll_create1(0)
    private let signal = apus_eventfd()
    private(set) var turns = 0

    init(_ backend: any Backend) throws {
        let signal = signal
        apus_epoll_add(epoll, signal, UInt32(APUS_READABLE) | UInt32(APUS_EDGE), 1)
        shard = try backend.makeShard(
            ShardRequest(
                index: 0, count: 1, wakeDescriptor: signal,
                milliseconds: { apus_monotonic_nanoseconds() / 1_000_000 },
                wake: { _ = eventfd_write(signal, 1) }))
    }

    deinit {
        close(epoll)
        close(signal)
    }

    /// Ends a turn, sleeps unless there is something left to do, and hands over what has ended.
    func turn(sleeping: Bool, _ receive: (borrowing Completion) -> Void) {
        shard.turnEnded(sleeping: sleeping)
        if sleeping {
            var event = epoll_event()
            _ = epoll_wait(epoll, &event, 1, 10)
        }
        shard.poll(receive)
        turns += 1
    }
}

/// Wall clock and CPU time of the process at one moment.
struct Moment {
    let nanoseconds = apus_monotonic_nanoseconds()
    let userMicroseconds: Double
    let systemMicroseconds: Double

    init() {
        var used = rusage()
        getrusage(Int32(RUSAGE_SELF.rawValue), &used)
        userMicroseconds = Double(used.ru_utime.tv_sec) * 1e6 + Double(used.ru_utime.tv_usec)
        systemMicroseconds = Double(used.ru_stime.tv_sec) * 1e6 + Double(used.ru_stime.tv_usec)
    }

    func seconds(since first: Moment) -> Double { Double(nanoseconds - first.nanoseconds) / 1e9 }
    func cpu(since first: Moment) -> Double {
        userMicroseconds + systemMicroseconds - first.userMicroseconds - first.systemMicroseconds
    }
}
