// A large compressed frame is inflated in steps, one in each turn, while its bytes wait in the connection's buffer: others
// get their turn in between. Invariants:
// 1. One connection at a time, `connection`; another one's large frame waits until that one has ended or is gone.
// 2. `takenCount` bytes of the stream in the frame's body are inflated. The body may move between two steps; it does not
//    change.
internal import Base
internal import CZlib

/// The inflating of one large frame. One thread.
final class LongInflation {
    /// What a step came to.
    enum Step {
        /// There is more to do.
        case more
        /// The whole frame, valid until `end`; nil if it is not what it claims to be.
        case whole(UnsafeRawBufferPointer?)
    }
    /// Frames that claim no more are inflated at once.
    static let smallSizeMax = 256 << 10
    private static let stepSize = 256 << 10
    private(set) var connection: UInt64?
    private var stream = z_stream()
    private let inner = OutputBuffer(capacity: 64)
    private var takenCount = 0

    init() {
        guard inflateInit_(&stream, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
            fatalError("zlib does not start: out of memory, or its version does not match")
        }
    }

    deinit { inflateEnd(&stream) }

    /// Takes over a frame, if there is no other one under way.
    func begin(_ connection: UInt64) {
        precondition(self.connection == nil && inner.count == 0)
        self.connection = connection
        takenCount = 0
    }

    /// Goes on with the frame of `connection`, whose body is `body`; `claimed` is what `Compression.claimed` says of it.
    func step(_ body: UnsafeRawBufferPointer, claimed: Int) -> Step {
        precondition(connection != nil && 8 + takenCount <= body.count)
        guard let base = body.baseAddress else { return .whole(nil) }
        if takenCount == 0 {
            guard inflateReset(&stream) == Z_OK else { return .whole(nil) }
            // Address space: pages are used as bytes come out, and there is one such frame at a time.
            _ = inner.reserve(claimed + LongInflation.stepSize)
        }
        let source = UnsafeMutableRawPointer(mutating: base + 8 + takenCount)
        stream.next_in = source.assumingMemoryBound(to: UInt8.self)
        stream.avail_in = UInt32(body.count - 8 - takenCount)
        stream.next_out = inner.reserve(LongInflation.stepSize).assumingMemoryBound(to: UInt8.self)
        stream.avail_out = UInt32(LongInflation.stepSize)
        let status = CZlib.inflate(&stream, Z_NO_FLUSH)
        takenCount = body.count - 8 - Int(stream.avail_in)
        inner.commit(LongInflation.stepSize - Int(stream.avail_out))
        if status == Z_STREAM_END { return .whole(inner.count == claimed ? inner.bytes : nil) }
        return status == Z_OK && inner.count <= claimed ? .more : .whole(nil)
    }

    /// The frame is not needed any more, or its connection is gone.
    func end() {
        connection = nil
        inner.truncate(to: 0)
    }
}
