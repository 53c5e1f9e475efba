package import Base
package import Record

/// The type of an expression, as numbered by the protocol. `any` is that of an expression that is always unknown.
package enum ExpressionType: UInt8, Sendable, BitwiseCopyable {
    case none = 0, bool, integer, string, list, map, blob, float, geoJSON, hyperLogLog
    case any = 255
}

/// Why bytes are not an expression that can be evaluated.
package enum ExpressionError: Error, Equatable, Sendable {
    /// Not an expression at all, or a wrong type, or over a limit: answer 4.
    case malformed
    /// An expression of the protocol that this server cannot evaluate yet: answer 16.
    case unsupported
}

extension ExpressionError {
    /// What the client is told.
    package var resultCode: ResultCode { self == .malformed ? .parameter : .unsupportedFeature }
}

/// What the metadata of a record say about a filter.
package enum Verdict: UInt8, Hashable, Sendable, BitwiseCopyable {
    case isTrue, isFalse, unknown
    /// Only the record itself can tell.
    case needsRecord
}

/// What is known of a record without reading it. `setName` is lent for the evaluation.
package struct RecordFacts: BitwiseCopyable {
    package var digest: Digest
    /// Milliseconds since 2010.
    package var lastUpdate: UInt64
    /// Seconds since 2010, 0 for never.
    package var voidTime: UInt32
    package var isKeyStored: Bool
    package var isTombstone: Bool
    /// Bytes that are stored for the record.
    package var byteCount: Int
    /// Empty for no set.
    package var setName: UnsafeRawBufferPointer
    /// The wall clock.
    package var now: RecordTime

    package init(
        digest: Digest, lastUpdate: UInt64, voidTime: UInt32, isKeyStored: Bool, isTombstone: Bool, byteCount: Int,
        setName: UnsafeRawBufferPointer, now: RecordTime
    ) {
        self.digest = digest
        self.lastUpdate = lastUpdate
        self.voidTime = voidTime
        self.isKeyStored = isKeyStored
        self.isTombstone = isTombstone
        self.byteCount = byteCount
        self.setName = setName
        self.now = now
    }
}

/// Where an evaluation finds bins and key: nowhere (metadata only), in an image, or in an editor that stands for the
/// record as the operations before have left it. A view: what it is made from must outlive it.
package struct BinSource: BitwiseCopyable {
    let bytes: UnsafeRawBufferPointer
    let count: Int
    /// Particle type byte and key bytes; empty if no key is stored.
    let key: UnsafeRawBufferPointer
    let editor: Unmanaged<RecordEditor>?
    let hasRecord: Bool

    private init(
        bytes: UnsafeRawBufferPointer, count: Int, key: UnsafeRawBufferPointer, editor: Unmanaged<RecordEditor>?,
        hasRecord: Bool
    ) {
        self.bytes = bytes
        self.count = count
        self.key = key
        self.editor = editor
        self.hasRecord = hasRecord
    }

    /// No record at hand.
    package static var metadataOnly: BinSource {
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        return BinSource(bytes: nothing, count: 0, key: nothing, editor: nil, hasRecord: false)
    }

    /// The bins of an image.
    package init(_ image: ImageView) {
        self.init(bytes: image.binBytes, count: image.binCount, key: image.key, editor: nil, hasRecord: true)
    }

    /// The bins that `editor` holds at the time of the evaluation, and the key of the record.
    package init(_ editor: RecordEditor, key: UnsafeRawBufferPointer) {
        self.init(
            bytes: UnsafeRawBufferPointer(start: nil, count: 0), count: 0, key: key, editor: .passUnretained(editor),
            hasRecord: true)
    }
}

/// What an evaluation came to. Points into the expression, the record, or nothing; lent until either goes or changes.
package struct ExpressionValue: BitwiseCopyable {
    /// Start of the bytes of a string, list, map, blob, geo or HLL value.
    var base: UnsafeRawPointer?
    /// An integer, the bits of a float, 0 or 1 of a bool, or the number of bytes at `base`.
    var bits: UInt64
    var kind: ValueKind
    /// The particle type, where the kind does not say it: blobs.
    var particleType: UInt8

    init(_ kind: ValueKind, bits: UInt64 = 0) {
        base = nil
        self.bits = bits
        self.kind = kind
        particleType = 0
    }

    init(_ kind: ValueKind, _ bytes: UnsafeRawBufferPointer, particleType: UInt8) {
        base = bytes.baseAddress
        bits = UInt64(bytes.count)
        self.kind = kind
        self.particleType = particleType
    }

    @inline(__always)
    static func integer(_ value: Int64) -> ExpressionValue {
        ExpressionValue(.integer, bits: UInt64(bitPattern: value))
    }
    @inline(__always)
    static func float(_ value: Double) -> ExpressionValue { ExpressionValue(.float, bits: value.bitPattern) }
    @inline(__always)
    static func bool(_ value: Bool) -> ExpressionValue { ExpressionValue(.bool, bits: value ? 1 : 0) }
    static var unknown: ExpressionValue { ExpressionValue(.unknown) }
    static var undecided: ExpressionValue { ExpressionValue(.undecided) }

    @inline(__always)
    var integer: Int64 { Int64(bitPattern: bits) }
    @inline(__always)
    var float: Double { Double(bitPattern: bits) }
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: Int(bits)) }
    /// Neither unknown nor undecided.
    @inline(__always)
    var isKnown: Bool { kind.rawValue < ValueKind.unknown.rawValue }
    @inline(__always)
    var isTrue: Bool { kind == .bool && bits == 1 }
    @inline(__always)
    var isFalse: Bool { kind == .bool && bits == 0 }
}

/// What a value is; the types of the protocol and the two that are no value.
enum ValueKind: UInt8, BitwiseCopyable {
    case none = 0, bool, integer, string, list, map, blob, float, geoJSON, hyperLogLog
    case unknown = 254, undecided = 255
}

extension ExpressionValue {
    /// No record can give it: a bin is missing or has another type, or a result has no value.
    package var isUnknown: Bool { !isKnown }

    /// As a bin holds it: particle type and bytes, of which scalars are written to `room` (8 bytes). Nil if unknown.
    package func particle(
        _ room: UnsafeMutableRawPointer
    ) -> (particleType: UInt8, value: UnsafeRawBufferPointer)? {
        switch kind {
        case .unknown, .undecided: return nil
        case .none: return (ParticleType.null, UnsafeRawBufferPointer(start: nil, count: 0))
        case .bool:
            room.storeBytes(of: UInt8(bits), as: UInt8.self)
            return (ParticleType.bool, UnsafeRawBufferPointer(start: room, count: 1))
        case .integer, .float:
            room.storeBigEndian(bits)
            return (
                kind == .integer ? ParticleType.integer : ParticleType.float, UnsafeRawBufferPointer(start: room, count: 8))
        case .string: return (ParticleType.string, bytes)
        case .list: return (ParticleType.list, bytes)
        case .map: return (ParticleType.map, bytes)
        case .blob: return (particleType, bytes)
        case .geoJSON: return (ParticleType.geoJSON, bytes)
        case .hyperLogLog: return (ParticleType.hyperLogLog, bytes)
        }
    }
}
