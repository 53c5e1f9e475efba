internal import Base
internal import Glibc

/// Names a connection of one reactor: slot and generation, so that a late answer for a closed one goes
/// nowhere.
package struct ConnectionID: Hashable, Sendable, BitwiseCopyable {
    /// Slot in the lower half, generation in the upper.
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    init(slot: Int, generation: UInt32) { rawValue = UInt64(generation) << 32 | UInt64(slot) }
    var slot: Int { Int(rawValue & 0xFFFF_FFFF) }
    var generation: UInt32 { UInt32(rawValue >> 32) }
}

/// Bytes of one connection that had to wait. Memory is there only while there are bytes.
struct PendingBytes: BitwiseCopyable {
    var base: UnsafeMutableRawPointer?
    var capacity = 0
    var start = 0
    var end = 0

    var count: Int { end - start }
    var isEmpty: Bool { end == start }
    var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base.map { UnsafeRawPointer($0) + start }, count: count)
    }

    /// Makes room for `more` bytes behind the end: moves to the front first, then grows.
    mutating func makeRoom(_ more: Int) -> UnsafeMutableRawPointer {
        if capacity - end < more, let base, start > 0 {
            memmove(base, base + start, count)
            end = count
            start = 0
        }
        if capacity - end < more {
            let wanted = max(2 * capacity, max(end + more, 4096))
            let larger = UnsafeMutableRawPointer.allocate(byteCount: wanted, alignment: 16)
            if let base {
                memcpy(larger, base, end)
                base.deallocate()
            }
            base = larger
            capacity = wanted
        }
        return base! + end
    }

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress, bytes.count > 0 else { return }
        memcpy(makeRoom(bytes.count), source, bytes.count)
        end += bytes.count
    }

    /// Drops bytes from the front; the memory goes with the last of them.
    mutating func consume(_ byteCount: Int) {
        start += byteCount
        precondition(start <= end)
        if isEmpty { release() }
    }

    mutating func release() {
        base?.deallocate()
        self = PendingBytes()
    }
}

/// One connection. Lives in the reactor's table.
struct Connection: BitwiseCopyable {
    var descriptor: Int32 = -1
    var generation: UInt32 = 0
    var kind: UInt8 = 0
    /// In use; a free slot only remembers its generation.
    var isOpen = false
    /// An answer is outstanding: frames wait.
    var isSuspended = false
    /// In the list of connections with frames left.
    var isReady = false
    /// Closes when its answers are out.
    var isClosing = false
    /// The peer sends no more.
    var hasPeerClosed = false
    /// What epoll was asked for.
    var events: UInt32 = 0
    /// Bytes the next call to the handler needs at least.
    var needed = 0
    var lastActive: UInt64 = 0
    /// When the socket first refused bytes that are still waiting; 0 if none wait.
    var blockedSince: UInt64 = 0
    /// How long it may take nothing of what waits.
    var patienceNanoseconds = Reactor.sendTimeoutNanoseconds
    var input = PendingBytes()
    var output = PendingBytes()
}

/// Bytes of a connection that wait in the receive buffer for the rest of their batch.
struct ReceivedAhead: BitwiseCopyable {
    var id: ConnectionID
    var bytes: UnsafeRawBufferPointer
}
