// What a segment says about itself: one copy of its header, as a value and as bytes. A copy has 16 KiB, little-endian:
//
//     0     magic "apus-seg"
//     8     format 4, kind 1 (0 shmem, 1 pmem), flags 1 (1 complete, 2 closed), number of keys 1, of regions 1
//     16    version 8: how often the header was changed, and so which copy is newer
//     24    layout 8, stage size 8, hash of the mounts 8
//     48    keys, 8 each
//           regions: size of the name 2, name, bytes backed 8
//           namespace, backend, owner: size 2, text
//     16380 CRC32C of all before
//
// Magic, format, version and CRC stay where they are in every later format. Format 1, of before the first release, had
// copies of 2,048 bytes: such a header counts as damaged.
internal import Base

/// The content of a header.
struct SegmentHeader: Sendable, Equatable {
    static let format: UInt32 = 2
    /// As many regions as there may be, and all texts, each of them as long as it may be, fit.
    static let copyByteCount = 16 << 10
    static let keysMax = 16
    /// 128 devices have one each; the index, the log and the records have a few more.
    static let regionsMax = 160
    static let nameSizeMax = 31
    static let textSizeMax = 64
    static let ownerSizeMax = 1024
    private static let magic = Array("apus-seg".utf8)
    private static let checkedByteCount = copyByteCount - 4

    /// A region's name and the bytes that its files have at least.
    struct Region: Sendable, Equatable {
        let name: String
        var backedByteCount: Int
    }

    var version: UInt64 = 0
    let kind: Segment.Kind
    let layout: UInt64
    let stageByteCount: Int
    let mountsHash: UInt64
    let namespace: String
    let backend: String
    let owner: String
    var isComplete = false
    var isClosed = false
    var keys: [UInt64] = []
    var regions: [Region] = []

    /// That of a segment nobody has used yet. Names longer than those that the configuration allows are cut.
    init(_ spec: Segment.Spec) {
        kind = spec.kind
        layout = spec.layout
        stageByteCount = spec.stageByteCount
        mountsHash = fnv1a(spec.mounts.joined(separator: "\n").utf8)
        namespace = SegmentHeader.cut(spec.namespace, SegmentHeader.textSizeMax)
        backend = SegmentHeader.cut(spec.backend, SegmentHeader.textSizeMax)
        owner = SegmentHeader.cut(spec.owner, SegmentHeader.ownerSizeMax)
    }

    private static func cut(_ text: String, _ sizeMax: Int) -> String {
        var size = 0
        return String(text.prefix { character in
            size += character.utf8.count
            return size <= sizeMax
        })
    }

    /// Whether a region may be called so.
    static func isRegionName(_ name: String) -> Bool {
        (1...nameSizeMax).contains(name.utf8.count)
            && name.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == UInt8(ascii: "-") }
    }

    /// What keeps a segment with this header from being gone on with as `wanted`; nil if nothing does.
    func difference(from wanted: SegmentHeader) -> String? {
        if namespace != wanted.namespace || owner != wanted.owner {
            return "it belongs to namespace '\(namespace)' of the node in \(owner)"
        }
        if backend != wanted.backend { return "it was used with storage-engine '\(backend)'" }
        if kind != wanted.kind { return "it was used as index-type \(kind)" }
        if layout != wanted.layout {
            return "it has layout \(layout), this version of Apus uses layout \(wanted.layout)"
        }
        if stageByteCount != wanted.stageByteCount {
            return "index-stage-size was \(stageByteCount) bytes and is \(wanted.stageByteCount) now"
        }
        if mountsHash != wanted.mountsHash { return "index-type had other mounts, or in another order" }
        if !isComplete { return "it was not complete when its process ended" }
        return nil
    }

    // ---- Bytes ----

    /// As it is stored.
    var encoded: [UInt8] {
        precondition(keys.count <= SegmentHeader.keysMax && regions.count <= SegmentHeader.regionsMax)
        var bytes = SegmentHeader.magic
        func add(_ value: some FixedWidthInteger) { withUnsafeBytes(of: value.littleEndian) { bytes += $0 } }
        func add(_ text: String) {
            add(UInt16(text.utf8.count))
            bytes += Array(text.utf8)
        }
        add(SegmentHeader.format)
        bytes += [kind == .pmem ? 1 : 0, (isComplete ? 1 : 0) | (isClosed ? 2 : 0), UInt8(keys.count), UInt8(regions.count)]
        add(version)
        add(layout)
        add(UInt64(stageByteCount))
        add(mountsHash)
        for key in keys { add(key) }
        for region in regions {
            add(region.name)
            add(UInt64(region.backedByteCount))
        }
        for text in [namespace, backend, owner] { add(text) }
        precondition(bytes.count <= SegmentHeader.checkedByteCount)
        bytes += [UInt8](repeating: 0, count: SegmentHeader.checkedByteCount - bytes.count)
        add(bytes.withUnsafeBytes { crc32c($0) })
        return bytes
    }

    /// What a copy turns out to be.
    enum Found: Sendable, Equatable {
        /// Not a header, or a damaged one.
        case nothing
        case otherFormat(UInt32)
        case header(SegmentHeader)
    }

    /// Reads a copy and says how new it is.
    static func parse(_ copy: UnsafeRawBufferPointer) -> (found: Found, version: UInt64) {
        guard copy.count == copyByteCount, copy.prefix(8).elementsEqual(magic), let base = copy.baseAddress else {
            return (.nothing, 0)
        }
        let checksum = base.littleEndian(UInt32.self, at: checkedByteCount)
        guard crc32c(UnsafeRawBufferPointer(rebasing: copy[..<checkedByteCount])) == checksum else { return (.nothing, 0) }
        let version = base.littleEndian(UInt64.self, at: 16)
        let number = base.littleEndian(UInt32.self, at: 8)
        guard number == format else { return (.otherFormat(number), version) }
        var reader = Reader(rest: UnsafeRawBufferPointer(rebasing: copy[12..<checkedByteCount]))
        guard let header = SegmentHeader(&reader) else { return (.nothing, 0) }
        return (.header(header), version)
    }

    private init?(_ reader: inout Reader) {
        kind = reader.number(UInt8.self) == 1 ? .pmem : .shmem
        let flags = reader.number(UInt8.self)
        isComplete = flags & 1 != 0
        isClosed = flags & 2 != 0
        let keyCount = reader.number(UInt8.self)
        let regionCount = reader.number(UInt8.self)
        version = reader.number(UInt64.self)
        layout = reader.number(UInt64.self)
        stageByteCount = Int(truncatingIfNeeded: reader.number(UInt64.self))
        mountsHash = reader.number(UInt64.self)
        guard keyCount <= SegmentHeader.keysMax, regionCount <= SegmentHeader.regionsMax else { return nil }
        for _ in 0..<keyCount { keys.append(reader.number(UInt64.self)) }
        for _ in 0..<regionCount {
            let name = reader.text()
            let byteCount = Int(truncatingIfNeeded: reader.number(UInt64.self))
            regions.append(Region(name: name, backedByteCount: byteCount))
        }
        namespace = reader.text()
        backend = reader.text()
        owner = reader.text()
        guard !reader.isShort, stageByteCount > 0,
            regions.allSatisfy({ $0.backedByteCount >= 0 && SegmentHeader.isRegionName($0.name) })
        else { return nil }
    }

    /// Takes values from the front; zeros, and `isShort`, once there is too little.
    private struct Reader {
        var rest: UnsafeRawBufferPointer
        var isShort = false

        mutating func take(_ count: Int) -> UnsafeRawBufferPointer {
            guard count <= rest.count else {
                isShort = true
                return UnsafeRawBufferPointer(start: nil, count: 0)
            }
            defer { rest = UnsafeRawBufferPointer(rebasing: rest[count...]) }
            return UnsafeRawBufferPointer(rebasing: rest[..<count])
        }

        mutating func number<Value: FixedWidthInteger & BitwiseCopyable>(_ type: Value.Type) -> Value {
            take(MemoryLayout<Value>.size).baseAddress?.littleEndian(type) ?? 0
        }

        mutating func text() -> String { take(Int(number(UInt16.self))).text }
    }
}
