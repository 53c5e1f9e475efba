// Compressed frames (type 4): a zlib stream of one whole frame. Invariants:
// 1. Memory for the inner frame grows with the bytes that really come out, never with what the frame claims.
// 2. `inner` is valid until the next call.
internal import Base
internal import CZlib
internal import Wire

/// Inflates requests and deflates answers with streams that are made once. One thread.
final class Compression {
    private var inflater = z_stream()
    private var deflater = z_stream()
    private let inner = OutputBuffer(capacity: 64 << 10)
    private static let step = 64 << 10

    init() {
        let size = Int32(MemoryLayout<z_stream>.size)
        let isReady = inflateInit_(&inflater, ZLIB_VERSION, size) == Z_OK
            && deflateInit_(&deflater, Z_BEST_SPEED, ZLIB_VERSION, size) == Z_OK
        guard isReady else { fatalError("zlib does not start: out of memory, or its version does not match") }
    }

    deinit {
        inflateEnd(&inflater)
        deflateEnd(&deflater)
    }

    /// How many bytes the body of a compressed frame claims to hold; nil if that is too much, or nothing follows.
    static func claimed(_ body: UnsafeRawBufferPointer) -> Int? {
        guard body.count > 8, let base = body.baseAddress else { return nil }
        let claimed = base.bigEndian(UInt64.self)
        return claimed <= UInt64(Limits.frameBodySizeMax) ? Int(claimed) : nil
    }

    /// The frame inside the body of a compressed frame; nil if it is not what it claims to be. For small ones: see
    /// `LongInflation`.
    func inflate(_ body: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard let claimed = Compression.claimed(body), let base = body.baseAddress else { return nil }
        inner.truncate(to: 0)
        guard inflateReset(&inflater) == Z_OK else { return nil }
        inflater.next_in = UnsafeMutablePointer(
            mutating: (base + 8).assumingMemoryBound(to: UInt8.self))
        inflater.avail_in = UInt32(body.count - 8)
        while inner.count <= claimed {
            let room = inner.reserve(Compression.step)
            inflater.next_out = room.assumingMemoryBound(to: UInt8.self)
            inflater.avail_out = UInt32(Compression.step)
            let status = CZlib.inflate(&inflater, Z_NO_FLUSH)
            inner.commit(Compression.step - Int(inflater.avail_out))
            if status == Z_STREAM_END { return inner.count == claimed ? inner.bytes : nil }
            guard status == Z_OK else { return nil }
        }
        return nil
    }

    /// The inner frame is not needed any more: a large one gives its memory back.
    func forget() { inner.truncate(to: 0) }

    /// The same for each of several frames.
    func deflateFrames(_ output: OutputBuffer, from start: Int) {
        let all = UnsafeRawBufferPointer(rebasing: output.bytes[start...])
        guard case .frame(let first) = FrameHeader.parse(all), FrameHeader.byteCount + first.bodySize < all.count else {
            return deflate(output, from: start)
        }
        let frames = OutputBuffer(capacity: all.count)
        frames.append(all)
        output.truncate(to: start)
        var offset = 0
        while case .frame(let header) = FrameHeader.parse(UnsafeRawBufferPointer(rebasing: frames.bytes[offset...])) {
            let end = offset + FrameHeader.byteCount + header.bodySize
            let begin = output.count
            output.append(UnsafeRawBufferPointer(rebasing: frames.bytes[offset..<end]))
            deflate(output, from: begin)
            offset = end
        }
    }

    /// Replaces the frame in `output` from `start` to the end by a compressed one, if that is smaller.
    func deflate(_ output: OutputBuffer, from start: Int) {
        let frame = UnsafeRawBufferPointer(rebasing: output.bytes[start...])
        guard frame.count > Compression.worthwhileSize, deflateReset(&deflater) == Z_OK else { return }
        inner.truncate(to: 0)
        defer { inner.truncate(to: 0) }
        let room = inner.reserve(frame.count)
        deflater.next_in = UnsafeMutablePointer(mutating: frame.baseAddress!.assumingMemoryBound(to: UInt8.self))
        deflater.avail_in = UInt32(frame.count)
        deflater.next_out = room.assumingMemoryBound(to: UInt8.self)
        deflater.avail_out = UInt32(frame.count - Compression.headerSize - 1)
        guard CZlib.deflate(&deflater, Z_FINISH) == Z_STREAM_END else { return }
        let size = Int(deflater.total_out)
        inner.commit(size)
        let innerSize = UInt64(frame.count)
        output.truncate(to: start)
        let header = output.reserve(Compression.headerSize)
        header.storeBigEndian(UInt64(2) << 56 | UInt64(4) << 48 | UInt64(8 + size))
        header.storeBigEndian(innerSize, at: 8)
        output.commit(Compression.headerSize)
        output.append(inner.bytes)
    }

    private static let headerSize = 16
    /// Smaller answers are not worth the effort.
    private static let worthwhileSize = 128
}
