// Words of the client protocol that more than one module needs: result codes, particle types, operation
// codes.

/// The one-byte result of a request.
public struct ResultCode: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    /// As on the wire.
    public let rawValue: UInt8
    /// Wraps the byte.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// 0: done.
    @inlinable public static var ok: ResultCode { ResultCode(rawValue: 0) }
    /// 1: the server failed; its log says how.
    @inlinable public static var unknown: ResultCode { ResultCode(rawValue: 1) }
    /// 2: no such record.
    @inlinable public static var notFound: ResultCode { ResultCode(rawValue: 2) }
    /// 3: the generation is not the expected one.
    @inlinable public static var generation: ResultCode { ResultCode(rawValue: 3) }
    /// 4: the request makes no sense.
    @inlinable public static var parameter: ResultCode { ResultCode(rawValue: 4) }
    /// 5: the record exists already.
    @inlinable public static var recordExists: ResultCode { ResultCode(rawValue: 5) }
    /// 6: the bin exists already.
    @inlinable public static var binExists: ResultCode { ResultCode(rawValue: 6) }
    /// 8: stop-writes or no space.
    @inlinable public static var outOfSpace: ResultCode { ResultCode(rawValue: 8) }
    /// 9: the deadline passed.
    @inlinable public static var timeout: ResultCode { ResultCode(rawValue: 9) }
    /// 11: the partition is not available.
    @inlinable public static var unavailable: ResultCode { ResultCode(rawValue: 11) }
    /// 12: the operation does not fit the bin's type.
    @inlinable public static var incompatibleType: ResultCode { ResultCode(rawValue: 12) }
    /// 13: larger than max-record-size.
    @inlinable public static var recordTooBig: ResultCode { ResultCode(rawValue: 13) }
    /// 14: too many requests wait for this record.
    @inlinable public static var keyBusy: ResultCode { ResultCode(rawValue: 14) }
    /// 15: a query was aborted.
    @inlinable public static var queryAbort: ResultCode { ResultCode(rawValue: 15) }
    /// 16: not supported by this server.
    @inlinable public static var unsupportedFeature: ResultCode { ResultCode(rawValue: 16) }
    /// 17: no such bin.
    @inlinable public static var binNotFound: ResultCode { ResultCode(rawValue: 17) }
    /// 18: the device is behind.
    @inlinable public static var deviceOverload: ResultCode { ResultCode(rawValue: 18) }
    /// 19: the stored key is another one.
    @inlinable public static var keyMismatch: ResultCode { ResultCode(rawValue: 19) }
    /// 20: no such namespace.
    @inlinable public static var namespace: ResultCode { ResultCode(rawValue: 20) }
    /// 21: a bin name is too long or has a NUL.
    @inlinable public static var binName: ResultCode { ResultCode(rawValue: 21) }
    /// 22: forbidden by a setting or a state.
    @inlinable public static var forbidden: ResultCode { ResultCode(rawValue: 22) }
    /// 23: no such element.
    @inlinable public static var elementNotFound: ResultCode { ResultCode(rawValue: 23) }
    /// 24: the element exists already.
    @inlinable public static var elementExists: ResultCode { ResultCode(rawValue: 24) }
    /// 26: the operation cannot be applied to this value.
    @inlinable public static var notApplicable: ResultCode { ResultCode(rawValue: 26) }
    /// 27: the filter expression was not true.
    @inlinable public static var filteredOut: ResultCode { ResultCode(rawValue: 27) }
    /// 201: no such secondary index.
    @inlinable public static var indexNotFound: ResultCode { ResultCode(rawValue: 201) }
    /// 52: security is not configured.
    @inlinable public static var securityNotEnabled: ResultCode { ResultCode(rawValue: 52) }
    /// 150: batches are switched off.
    @inlinable public static var batchDisabled: ResultCode { ResultCode(rawValue: 150) }
    /// 151: more rows than batch-max-requests.
    @inlinable public static var batchMaxRequests: ResultCode { ResultCode(rawValue: 151) }
    /// 152: too many batches are under way.
    @inlinable public static var batchQueuesFull: ResultCode { ResultCode(rawValue: 152) }
}

/// The type byte of a bin value.
public enum ParticleType {
    /// No value; in a write it deletes the bin.
    @inlinable public static var null: UInt8 { 0 }
    /// 64-bit integer, 8 bytes big-endian.
    @inlinable public static var integer: UInt8 { 1 }
    /// 64-bit IEEE float, 8 bytes big-endian.
    @inlinable public static var float: UInt8 { 2 }
    /// UTF-8 text.
    @inlinable public static var string: UInt8 { 3 }
    /// Bytes.
    @inlinable public static var blob: UInt8 { 4 }
    /// Bytes in a client language's own serialisation: 7 to 12.
    public static let languageBlobs: ClosedRange<UInt8> = 7...12
    /// One byte, 0 or 1.
    @inlinable public static var bool: UInt8 { 17 }
    /// HyperLogLog sketch.
    @inlinable public static var hyperLogLog: UInt8 { 18 }
    /// Map in msgpack.
    @inlinable public static var map: UInt8 { 19 }
    /// List in msgpack.
    @inlinable public static var list: UInt8 { 20 }
    /// GeoJSON with cells.
    @inlinable public static var geoJSON: UInt8 { 23 }
}

/// The code byte of a bin operation.
public enum OperationCode {
    /// Read one bin, or all if the name is empty.
    @inlinable public static var read: UInt8 { 1 }
    /// Write one bin; a null value deletes it.
    @inlinable public static var write: UInt8 { 2 }
    /// List and map read.
    @inlinable public static var collectionRead: UInt8 { 3 }
    /// List and map modify.
    @inlinable public static var collectionModify: UInt8 { 4 }
    /// Add to an integer or float.
    @inlinable public static var increment: UInt8 { 5 }
    /// Expression read.
    @inlinable public static var expressionRead: UInt8 { 7 }
    /// Expression modify.
    @inlinable public static var expressionModify: UInt8 { 8 }
    /// Append to a string or blob.
    @inlinable public static var append: UInt8 { 9 }
    /// Prepend to a string or blob.
    @inlinable public static var prepend: UInt8 { 10 }
    /// Renew the time to live.
    @inlinable public static var touch: UInt8 { 11 }
    /// Bit read.
    @inlinable public static var bitsRead: UInt8 { 12 }
    /// Bit modify.
    @inlinable public static var bitsModify: UInt8 { 13 }
    /// Delete all bins.
    @inlinable public static var deleteAll: UInt8 { 14 }
    /// HyperLogLog read.
    @inlinable public static var hyperLogLogRead: UInt8 { 15 }
    /// HyperLogLog modify.
    @inlinable public static var hyperLogLogModify: UInt8 { 16 }
}

/// One bin operation of a request; points into the request's bytes.
public struct OperationView: BitwiseCopyable {
    /// An `OperationCode`, not checked.
    public var code: UInt8
    /// A `ParticleType`, not checked.
    public var particleType: UInt8
    /// Bin name.
    public var name: UnsafeRawBufferPointer
    /// Value bytes.
    public var value: UnsafeRawBufferPointer

    /// Joins the parts.
    @inlinable
    public init(code: UInt8, particleType: UInt8, name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
        self.code = code
        self.particleType = particleType
        self.name = name
        self.value = value
    }
}
