// Reads what a crash leaves of the two arenas as docs/formats.md describes them, and knows nothing else of the index.
import Base

/// What a test knows of a record.
struct Kept: Equatable {
    var location: UInt64
    var kind: UInt8 = 0
}

/// `entries` and `lines` are regions: in front of each lies the header of its arena.
struct ImageReader {
    let entries: ArraySlice<UInt8>
    let lines: ArraySlice<UInt8>

    init(entries: [UInt8], lines: [UInt8]) {
        self.entries = entries[64...]
        self.lines = lines[64...]
    }

    private func word(_ bytes: ArraySlice<UInt8>, _ offset: Int) -> UInt64 {
        bytes.withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
    }

    private func half(_ offset: Int) -> Int {
        lines.withUnsafeBytes { Int(UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self))) }
    }

    /// The 52 bits behind the partition, most significant first, with the last of them first.
    private func reversedKey(_ digest: Digest) -> Int {
        var bits: [Int] = (0..<4).map { Int(digest[1] >> (7 - UInt8($0)) & 1) }
        for byte in 2..<8 { bits += (0..<8).map { Int(digest[byte] >> (7 - UInt8($0)) & 1) } }
        return bits.enumerated().reduce(0) { $0 | $1.element << $1.offset }
    }

    func bucket(_ digest: Digest) -> Int {
        let state = word(lines, Int(digest.partition.number) * 384)
        let level = Int(state >> 32)
        let count = 4 << level + Int(state & 0xFFFF_FFFF)
        let key = reversedKey(digest)
        let wide = key & (8 << level - 1)
        return wide < count ? wide : key & (4 << level - 1)
    }

    func bucketCount(_ partition: Int) -> Int {
        let state = word(lines, partition * 384)
        return 4 << Int(state >> 32) + Int(state & 0xFFFF_FFFF)
    }

    /// Segment 0 has 4 buckets; each doubling adds four segments of equal size.
    private func lineOffset(_ partition: Int, _ bucket: Int) -> Int? {
        var segment = 0
        var first = 0
        var size = 4
        while bucket >= first + size {
            first += size
            segment += 1
            size = 1 << ((segment - 1) / 4)
        }
        let line = half(partition * 384 + 8 + 4 * segment)
        return line == 0 ? nil : (line + bucket - first) * 64
    }

    /// Every handle of a bucket with its digest and what its entry says; nil if something leads nowhere.
    func records(_ partition: Int, _ bucket: Int) -> [(digest: Digest, kept: Kept)]? {
        guard var offset = lineOffset(partition, bucket) else { return nil }
        var found: [(digest: Digest, kept: Kept)] = []
        for _ in 0..<8 {
            guard offset + 64 <= lines.count else { return nil }
            for slot in 0..<12 where half(offset + 16 + 4 * slot) != 0 {
                let (handle, tag) = (half(offset + 16 + 4 * slot), lines[64 + offset + slot])
                guard let record = record(partition, handle, tag: tag) else { return nil }
                found.append(record)
            }
            let link = half(offset + 12)
            if link == 0 { return found }
            if link >> 31 == 1 {
                guard let run = run(partition, (link & 0x7FFF_FFFF) * 64) else { return nil }
                return found + run
            }
            offset = link * 64
        }
        return nil
    }

    private func run(_ partition: Int, _ offset: Int) -> [(digest: Digest, kept: Kept)]? {
        guard offset + 64 <= lines.count, offset + 64 + 8 * half(offset + 4) <= lines.count else { return nil }
        guard half(offset) <= half(offset + 4) else { return nil }
        var found: [(digest: Digest, kept: Kept)] = []
        for place in 0..<half(offset) {
            let element = word(lines, offset + 64 + 8 * place)
            let handle = Int(element & 0xFFFF_FFFF)
            guard let record = record(partition, handle, tag: UInt8(truncatingIfNeeded: element >> 32)) else { return nil }
            found.append(record)
        }
        return found
    }

    private func record(_ partition: Int, _ handle: Int, tag: UInt8) -> (digest: Digest, kept: Kept)? {
        let entry = (handle - 1) * 40
        guard entry >= 0, entry + 40 <= entries.count else { return nil }
        let top = word(entries, entry + 16) >> 52
        let (third, fourth) = (word(entries, entry + 24), word(entries, entry + 32))
        let digest = Digest(
            low: UInt64(partition) | top << 12 | third << 24, middle: third >> 40 | fourth << 24,
            high: UInt32(truncatingIfNeeded: fourth >> 40) | UInt32(tag) << 24)
        let kind = UInt8(word(entries, entry + 8) >> 56 & 7)
        return (digest, Kept(location: word(entries, entry) & (1 << 44 - 1), kind: kind))
    }
}
