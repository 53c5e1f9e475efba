// One thread of the generator: a closed loop, or a pace. Every connection has up to `depth` requests under way; an
// answer makes room for the next one, which goes at once, or when it is due. Invariants:
// 1. `started` of a connection holds the times of its outstanding requests (with a pace, when they were due) in
//    order; answers come in that
//    order.
// 2. The totals are written by the worker's thread only and read by others as single words.
internal import Base
internal import CBase
internal import CReactor
internal import Client
internal import Glibc

/// What all workers share.
final class BenchShared: @unchecked Sendable {
    let settings: BenchSettings
    let digests: UnsafePointer<Digest>
    let tend: Tend
    // Word 0: record latencies; 8: stop; 16: next key of a load.
    let words: UnsafeMutablePointer<UInt64>

    init(_ settings: BenchSettings, _ digests: UnsafePointer<Digest>, _ tend: Tend) {
        self.settings = settings
        self.digests = digests
        self.tend = tend
        words = .allocate(capacity: 24)
        words.initialize(repeating: 0, count: 24)
    }

    var isRecording: Bool {
        get { apus_load_relaxed_u64(words) != 0 }
        set { apus_store_relaxed_u64(words, newValue ? 1 : 0) }
    }
    var isStopAsked: Bool {
        get { apus_load_relaxed_u64(words + 8) != 0 }
        set { apus_store_relaxed_u64(words + 8, newValue ? 1 : 0) }
    }
    /// Key numbers of a load that have been taken.
    func takeKey() -> Int { Int(apus_fetch_add_u64(words + 16, 1)) }
}

/// One connection of a worker.
private struct Line {
    var descriptor: Int32
    var node: Int
    var reader: AnswerReader
    var started: [UInt64]
    var first = 0
    var outstanding = 0
    var unsent: [UInt8] = []
}

/// See the invariants above.
final class BenchWorker: @unchecked Sendable {
    private let shared: BenchShared
    private let number: Int
    private let maker: RequestMaker
    private let chooser: KeyChooser
    private var random: SeededRandom
    private var lines: [Line] = []
    private var epoll: Int32 = -1
    private let input = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 64)
    private let output: UnsafeMutableRawPointer
    private var thread = pthread_t()
    private var isLoadDone = false
    private var pace: Pace?
    /// The connection that was given the last due request.
    private var lastPlace = 0
    /// Operations that were answered: word 0. Any thread reads.
    let answered: UnsafeMutablePointer<UInt64>
    /// After `join`.
    private(set) var histogram = LatencyHistogram()
    private(set) var errors: [UInt8: UInt64] = [:]
    private(set) var failure: String?

    init(_ shared: BenchShared, number: Int) {
        self.shared = shared
        self.number = number
        random = SeededRandom(seed: shared.settings.seed &* 1000 &+ UInt64(number))
        maker = RequestMaker(shared.settings, shared.digests, &random)
        chooser = KeyChooser(shared.settings.isZipfian ? .zipfian : .uniform, count: shared.settings.keys)
        output = .allocate(byteCount: maker.sizeMax * shared.settings.depth, alignment: 64)
        answered = .allocate(capacity: 8)
        answered.initialize(repeating: 0, count: 8)
    }

    /// Opens this worker's share of the connections, spread over the nodes.
    func connect() throws(BenchError) {
        let settings = shared.settings
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        let framing: AnswerReader.Framing =
            switch settings.target {
            case .cluster: settings.batchRows > 0 ? .streams : .frames
            case .redis: .redis
            case .echo(let read, let write): .fixed(settings.readPercent > 0 ? read : write)
            }
        for connection in 0..<settings.connections where connection % settings.threads == number {
            let node = shared.tend.nodes.isEmpty ? 0 : connection % shared.tend.nodes.count
            let address = shared.tend.nodes.isEmpty ? settings.seeds[0] : shared.tend.nodes[node].address
            let descriptor = try ClientSocket.connect(address)
            apus_epoll_add(epoll, descriptor, UInt32(APUS_READABLE), UInt64(lines.count))
            lines.append(Line(
                descriptor: descriptor, node: node, reader: AnswerReader(framing),
                started: [UInt64](repeating: 0, count: settings.depth)))
        }
    }

    func start() {
        pthread_create(
            &thread, nil,
            { pointer in
                Unmanaged<BenchWorker>.fromOpaque(pointer!).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(self).toOpaque())
    }

    func join() { pthread_join(thread, nil) }

    private func run() {
        if let first = shared.settings.firstProcessor { apus_pin_thread(Int32(first + number)) }
        let begun = apus_monotonic_nanoseconds()
        pace = shared.settings.rate.map { Pace(operationsPerSecond: $0 / Double(shared.settings.threads), begun: begun) }
        for place in lines.indices { refill(place, begun) }
        var events = [epoll_event](repeating: epoll_event(), count: 256)
        while !isFinished {
            let count = wait(&events)
            let now = apus_monotonic_nanoseconds()
            for event in 0..<Int(max(count, 0)) {
                let (flags, token) = withUnsafePointer(to: &events[event]) {
                    (apus_event_flags($0), Int(apus_event_token($0)))
                }
                if flags & UInt32(APUS_WRITABLE) != 0 { flush(token) }
                if flags & ~UInt32(APUS_WRITABLE) != 0 { receive(token, now) }
            }
            if pace != nil { startDue() }
        }
        for line in lines { close(line.descriptor) }
        close(epoll)
    }

    private var isFinished: Bool {
        failure != nil || shared.isStopAsked || isLoadDone && lines.allSatisfy { $0.outstanding == 0 }
    }

    private static let waitNanoseconds: UInt64 = 100_000_000

    /// Waits for answers, and with a pace at most until the next request is due.
    private func wait(_ events: inout [epoll_event]) -> Int32 {
        guard let pace, lines.contains(where: { $0.outstanding < shared.settings.depth }) else {
            return epoll_wait(epoll, &events, Int32(events.count), Int32(BenchWorker.waitNanoseconds / 1_000_000))
        }
        let nanoseconds = min(pace.wait(apus_monotonic_nanoseconds()), BenchWorker.waitNanoseconds)
        var time = timespec(tv_sec: 0, tv_nsec: Int(nanoseconds))
        return epoll_pwait2(epoll, &events, Int32(events.count), &time, nil)
    }

    /// Starts what is due on connections that have room, in turn.
    private func startDue() {
        let now = apus_monotonic_nanoseconds()
        while let pace, pace.wait(now) == 0 {
            let places = (1...lines.count).lazy.map { (self.lastPlace + $0) % self.lines.count }
            guard let place = places.first(where: { lines[$0].outstanding < shared.settings.depth }) else { return }
            lastPlace = place
            refill(place, now, atMost: 1)
        }
    }

    private func receive(_ place: Int, _ now: UInt64) {
        let got = recv(lines[place].descriptor, input.baseAddress!, input.count, 0)
        guard got > 0 else {
            if got < 0, errno == EAGAIN || errno == EINTR { return }
            failure = "the server closed a connection"
            return
        }
        let isRecording = shared.isRecording
        var line = lines[place]
        lines[place].reader = AnswerReader(.fixed(1))
        var done: UInt64 = 0
        let depth = line.started.count
        let isSane = line.reader.take(UnsafeRawBufferPointer(rebasing: input[..<got])) { result in
            if result != 0 { errors[result, default: 0] += 1 }
            if isRecording { histogram.record(now - line.started[line.first]) }
            line.first = (line.first + 1) % depth
            line.outstanding -= 1
            done += UInt64(max(shared.settings.batchRows, 1))
        }
        lines[place] = line
        guard isSane, line.outstanding >= 0 else {
            failure = "the server sent bytes that are no answer"
            return
        }
        apus_store_relaxed_u64(answered, apus_load_relaxed_u64(answered) + done)
        refill(place, now)
    }

    /// When the next request begins: now, or when it was due; nil if there is nothing to send yet.
    private func nextStart(_ now: UInt64) -> UInt64? { pace == nil ? now : pace?.take(now) }

    /// Sends as many requests as there is room for, with one write.
    private func refill(_ place: Int, _ now: UInt64, atMost: Int = .max) {
        var size = 0
        var count = 0
        while count < atMost, lines[place].outstanding < shared.settings.depth, let start = nextStart(now),
            let requestSize = writeRequest(lines[place].node, to: output + size) {
            count += 1
            size += requestSize
            let slot = (lines[place].first + lines[place].outstanding) % shared.settings.depth
            lines[place].started[slot] = start
            lines[place].outstanding += 1
        }
        guard size > 0 else { return }
        if lines[place].unsent.isEmpty {
            let sent = max(send(lines[place].descriptor, output, size, Int32(MSG_NOSIGNAL)), 0)
            guard sent < size else { return }
            lines[place].unsent = Array(UnsafeRawBufferPointer(start: output + sent, count: size - sent))
            apus_epoll_change(
                epoll, lines[place].descriptor, UInt32(APUS_READABLE) | UInt32(APUS_WRITABLE), UInt64(place))
        } else {
            lines[place].unsent += UnsafeRawBufferPointer(start: output, count: size)
        }
    }

    /// Writes the next request for a node and returns its size; nil if there is none.
    private func writeRequest(_ node: Int, to place: UnsafeMutableRawPointer) -> Int? {
        if shared.settings.batchRows > 0 { return maker.writeBatch(to: place) { nextOperation(node)?.key ?? 0 } }
        guard let (key, isWrite) = nextOperation(node) else { return nil }
        return maker.write(key, isWrite: isWrite, &random, to: place)
    }

    private func flush(_ place: Int) {
        let sent = lines[place].unsent.withUnsafeBytes {
            send(lines[place].descriptor, $0.baseAddress!, $0.count, Int32(MSG_NOSIGNAL))
        }
        if sent > 0 { lines[place].unsent.removeFirst(sent) }
        if lines[place].unsent.isEmpty {
            apus_epoll_change(epoll, lines[place].descriptor, UInt32(APUS_READABLE), UInt64(place))
        }
    }

    private func nextOperation(_ node: Int) -> (key: Int, isWrite: Bool)? {
        let settings = shared.settings
        if settings.isLoad {
            let key = shared.takeKey()
            guard key < settings.keys * settings.rounds else {
                isLoadDone = true
                return nil
            }
            return (key % settings.keys, true)
        }
        var key = chooser.next(&random)
        if shared.tend.nodes.count > 1 {
            for _ in 0..<64 where shared.tend.partitions[shared.digests[key].partition] != node {
                key = chooser.next(&random)
            }
        }
        let isWrite = settings.readPercent < 100 && Int(random.next() % 100) >= settings.readPercent
        return (key, isWrite)
    }
}
