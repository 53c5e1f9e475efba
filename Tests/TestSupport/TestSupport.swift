// What several test targets need.
package import Base
internal import Glibc
internal import Synchronization

/// The seed of this run: `APUS_SEED` to replay, else drawn; always printed.
package func runSeed(_ name: String) -> UInt64 {
    var entropy = SystemRandomNumberGenerator()
    let seed = getenv("APUS_SEED").flatMap { UInt64(String(cString: $0)) } ?? entropy.next()
    print("\(name): APUS_SEED=\(seed)")
    return seed
}

/// The bytes that hexadecimal digits stand for.
package func bytes(hex: String) -> [UInt8] {
    let digits = Array(hex.utf8).map { UInt8(String(decoding: [$0], as: UTF8.self), radix: 16)! }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

/// Lower-case digits of bytes.
package func hex(_ bytes: some Sequence<UInt8>) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

extension Digest {
    /// The digest that 40 digits stand for.
    package init(hex: String) {
        let all = bytes(hex: hex)
        precondition(all.count == Digest.byteCount)
        self = all.withUnsafeBytes { Digest($0.baseAddress!) }
    }

    /// A digest of chance.
    package static func random(_ random: inout SeededRandom) -> Digest {
        Digest(low: random.next(), middle: random.next(), high: UInt32(truncatingIfNeeded: random.next()))
    }

    /// A digest of chance in a given partition.
    package static func random(_ random: inout SeededRandom, in partition: UInt16) -> Digest {
        let low = random.next() & ~0xFFF | UInt64(partition)
        return Digest(low: low, middle: random.next(), high: UInt32(truncatingIfNeeded: random.next()))
    }
}

/// Bytes in an allocation of exactly their size, so that a sanitizer sees every byte read beyond them. The
/// optimiser ends the life of an object at its last use, and a view is no use: so the last 65,536 allocations
/// of each thread stay, whatever tests beside this one allocate.
package struct Block {
    package let bytes: UnsafeMutableRawBufferPointer
    package init(_ content: [UInt8]) {
        bytes = .allocate(byteCount: content.count, alignment: 1)
        bytes.copyBytes(from: content)
        RecentBlocks.ofThisThread.keep(bytes)
    }
    package var count: Int { bytes.count }
    package var view: UnsafeRawBufferPointer { UnsafeRawBufferPointer(bytes) }
}

/// Allocations of exactly their size that live as long as this object: for tests that hold views while they allocate many
/// blocks. Keep it with `withExtendedLifetime`.
package final class KeptBlocks {
    private var all: [UnsafeMutableRawBufferPointer] = []
    package init() {}
    deinit { for bytes in all { bytes.deallocate() } }

    /// A view of a copy of `content`.
    package func add(_ content: some Collection<UInt8>) -> UnsafeRawBufferPointer {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: content.count, alignment: 1)
        bytes.copyBytes(from: content)
        all.append(bytes)
        return UnsafeRawBufferPointer(bytes)
    }
}

/// The last blocks of one thread. A common ring would let tests that run beside this one free what it still uses: while its
/// thread has no processor others allocate 65,536 blocks in some 30 ms, and what it then writes into a block is in memory of
/// theirs. The blocks of a thread that has ended stay: somebody may hold a view.
private final class RecentBlocks: @unchecked Sendable {
    private static let countMax = 65_536
    private static let ofAllThreads = Mutex<[RecentBlocks]>([])
    private static let key = {
        var key = pthread_key_t()
        precondition(pthread_key_create(&key, nil) == 0, "a key for a value of each thread")
        return key
    }()
    private var ring: [UnsafeMutableRawBufferPointer] = []
    private var next = 0

    static var ofThisThread: RecentBlocks {
        if let known = pthread_getspecific(key) { return Unmanaged.fromOpaque(known).takeUnretainedValue() }
        let made = RecentBlocks()
        ofAllThreads.withLock { $0.append(made) }
        pthread_setspecific(key, Unmanaged.passUnretained(made).toOpaque())
        return made
    }

    func keep(_ bytes: UnsafeMutableRawBufferPointer) {
        if ring.count < RecentBlocks.countMax { return ring.append(bytes) }
        ring[next].deallocate()
        ring[next] = bytes
        next = (next + 1) % RecentBlocks.countMax
    }
}

/// Repeats `step` of a random history until its time is up, at least once. What a test expects to have met is no matter of
/// how fast the machine is: until `isEnough` it goes on beyond its time, up to 100 times as long.
package func forAWhile(
    _ seconds: Double, until isEnough: @autoclosure () -> Bool = true, _ step: () throws -> Void
) rethrows {
    let scale = getenv("APUS_SOAK").flatMap { Double(String(cString: $0)) } ?? 1
    var begun = timespec()
    clock_gettime(CLOCK_MONOTONIC, &begun)
    while true {
        try step()
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let spent = Double(now.tv_sec - begun.tv_sec) + Double(now.tv_nsec - begun.tv_nsec) / 1e9
        if spent > seconds * scale, isEnough() || spent > 100 * seconds * scale { return }
    }
}
