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
/// stay.
package struct Block {
    package let bytes: UnsafeMutableRawBufferPointer
    package init(_ content: [UInt8]) {
        bytes = .allocate(byteCount: content.count, alignment: 1)
        bytes.copyBytes(from: content)
        Recent.keep(bytes)
    }
    package var count: Int { bytes.count }
    package var view: UnsafeRawBufferPointer { UnsafeRawBufferPointer(bytes) }
}

/// Allocations of exactly their size that live as long as this object: for tests that hold many views for long, while
/// others, in parallel, push the recent ones out. Keep it with `withExtendedLifetime`.
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

private enum Recent {
    private static let kept = Mutex<(ring: [UInt], next: Int)>(([], 0))

    static func keep(_ bytes: UnsafeMutableRawBufferPointer) {
        guard let address = bytes.baseAddress.map({ UInt(bitPattern: $0) }) else { return }
        kept.withLock { state in
            if state.ring.count < 65_536 { return state.ring.append(address) }
            UnsafeMutableRawPointer(bitPattern: state.ring[state.next])?.deallocate()
            state.ring[state.next] = address
            state.next = (state.next + 1) % state.ring.count
        }
    }
}

/// Repeats `step` of a random history until its time is up, at least once.
package func forAWhile(_ seconds: Double, _ step: () throws -> Void) rethrows {
    let scale = getenv("APUS_SOAK").flatMap { Double(String(cString: $0)) } ?? 1
    var begun = timespec()
    clock_gettime(CLOCK_MONOTONIC, &begun)
    while true {
        try step()
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let spent = Double(now.tv_sec - begun.tv_sec) + Double(now.tv_nsec - begun.tv_nsec) / 1e9
        if spent > seconds * scale { return }
    }
}
