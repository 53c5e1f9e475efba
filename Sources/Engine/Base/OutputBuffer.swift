// A growing run of bytes that answers are written to in place. Invariants:
// 1. 0 <= count <= capacity; bytes below `count` are written, the rest is scratch.
// 2. A pointer from `reserve` is valid until the next `reserve` or `append`.
internal import Glibc

/// Where answers are collected before they leave. Not thread-safe: it belongs to one thread at a time.
public final class OutputBuffer {
    private var base: UnsafeMutableRawPointer
    private var capacity: Int
    /// How many bytes are written.
    public private(set) var count = 0

    /// More room than this is given back when the buffer is emptied.
    private static let capacityKept = 1 << 20
    private let initialCapacity: Int

    /// Starts with room for `capacity` bytes; grows when it must and keeps up to 1 MiB of what it grew to.
    public init(capacity: Int = 4096) {
        precondition(capacity > 0)
        initialCapacity = capacity
        self.capacity = capacity
        base = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 64)
    }

    deinit { base.deallocate() }

    /// Room for `byteCount` more bytes at the end; `commit` says how many of them were used.
    public func reserve(_ byteCount: Int) -> UnsafeMutableRawPointer {
        if capacity - count < byteCount { grow(byteCount) }
        return base + count
    }

    /// Counts `byteCount` bytes, written to what `reserve` gave, as part of the content.
    public func commit(_ byteCount: Int) {
        count += byteCount
        precondition(byteCount >= 0 && count <= capacity)
    }

    /// Adds a copy of `bytes`.
    public func append(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress, bytes.count > 0 else { return }
        memcpy(reserve(bytes.count), source, bytes.count)
        commit(bytes.count)
    }

    /// Drops everything behind the first `byteCount` bytes.
    public func truncate(to byteCount: Int) {
        precondition(byteCount >= 0 && byteCount <= count)
        count = byteCount
        if count == 0, capacity > max(OutputBuffer.capacityKept, initialCapacity) { shrink() }
    }

    /// The content; valid until the next change.
    public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

    /// The content, to be patched in place; valid until the next change.
    public var mutableBytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: base, count: count)
    }

    @inline(never)
    private func shrink() {
        base.deallocate()
        capacity = initialCapacity
        base = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 64)
    }

    @inline(never)
    private func grow(_ byteCount: Int) {
        let wanted = max(capacity * 2, count + byteCount)
        let larger = UnsafeMutableRawPointer.allocate(byteCount: wanted, alignment: 64)
        memcpy(larger, base, count)
        base.deallocate()
        base = larger
        capacity = wanted
    }
}
