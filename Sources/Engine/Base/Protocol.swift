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
    public static let ok = ResultCode(rawValue: 0)
    /// 1: the server failed; its log says how.
    public static let unknown = ResultCode(rawValue: 1)
    /// 2: no such record.
    public static let notFound = ResultCode(rawValue: 2)
    /// 3: the generation is not the expected one.
    public static let generation = ResultCode(rawValue: 3)
    /// 4: the request makes no sense.
    public static let parameter = ResultCode(rawValue: 4)
    /// 5: the record exists already.
    public static let recordExists = ResultCode(rawValue: 5)
    /// 6: the bin exists already.
    public static let binExists = ResultCode(rawValue: 6)
    /// 8: stop-writes or no space.
    public static let outOfSpace = ResultCode(rawValue: 8)
    /// 9: the deadline passed.
    public static let timeout = ResultCode(rawValue: 9)
    /// 11: the partition is not available.
    public static let unavailable = ResultCode(rawValue: 11)
    /// 12: the operation does not fit the bin's type.
    public static let incompatibleType = ResultCode(rawValue: 12)
    /// 13: larger than max-record-size.
    public static let recordTooBig = ResultCode(rawValue: 13)
    /// 14: too many requests wait for this record.
    public static let keyBusy = ResultCode(rawValue: 14)
    /// 16: not supported by this server.
    public static let unsupportedFeature = ResultCode(rawValue: 16)
    /// 17: no such bin.
    public static let binNotFound = ResultCode(rawValue: 17)
    /// 18: the device is behind.
    public static let deviceOverload = ResultCode(rawValue: 18)
    /// 19: the stored key is another one.
    public static let keyMismatch = ResultCode(rawValue: 19)
    /// 20: no such namespace.
    public static let namespace = ResultCode(rawValue: 20)
    /// 21: a bin name is too long or has a NUL.
    public static let binName = ResultCode(rawValue: 21)
    /// 22: forbidden by a setting or a state.
    public static let forbidden = ResultCode(rawValue: 22)
    /// 23: no such element.
    public static let elementNotFound = ResultCode(rawValue: 23)
    /// 24: the element exists already.
    public static let elementExists = ResultCode(rawValue: 24)
    /// 26: the operation cannot be applied to this value.
    public static let notApplicable = ResultCode(rawValue: 26)
    /// 27: the filter expression was not true.
    public static let filteredOut = ResultCode(rawValue: 27)
    /// 52: security is not configured.
    public static let securityNotEnabled = ResultCode(rawValue: 52)
}

/// The type byte of a bin value.
public enum ParticleType {
    /// No value; in a write it deletes the bin.
    public static let null: UInt8 = 0
    /// 64-bit integer, 8 bytes big-endian.
    public static let integer: UInt8 = 1
    /// 64-bit IEEE float, 8 bytes big-endian.
    public static let float: UInt8 = 2
    /// UTF-8 text.
    public static let string: UInt8 = 3
    /// Bytes.
    public static let blob: UInt8 = 4
    /// Bytes in a client language's own serialisation: 7 to 12.
    public static let languageBlobs: ClosedRange<UInt8> = 7...12
    /// One byte, 0 or 1.
    public static let bool: UInt8 = 17
    /// HyperLogLog sketch.
    public static let hyperLogLog: UInt8 = 18
    /// Map in msgpack.
    public static let map: UInt8 = 19
    /// List in msgpack.
    public static let list: UInt8 = 20
    /// GeoJSON with cells.
    public static let geoJSON: UInt8 = 23
}

/// The code byte of a bin operation.
public enum OperationCode {
    /// Read one bin, or all if the name is empty.
    public static let read: UInt8 = 1
    /// Write one bin; a null value deletes it.
    public static let write: UInt8 = 2
    /// List and map read.
    public static let collectionRead: UInt8 = 3
    /// List and map modify.
    public static let collectionModify: UInt8 = 4
    /// Add to an integer or float.
    public static let increment: UInt8 = 5
    /// Expression read.
    public static let expressionRead: UInt8 = 7
    /// Expression modify.
    public static let expressionModify: UInt8 = 8
    /// Append to a string or blob.
    public static let append: UInt8 = 9
    /// Prepend to a string or blob.
    public static let prepend: UInt8 = 10
    /// Renew the time to live.
    public static let touch: UInt8 = 11
    /// Bit read.
    public static let bitsRead: UInt8 = 12
    /// Bit modify.
    public static let bitsModify: UInt8 = 13
    /// Delete all bins.
    public static let deleteAll: UInt8 = 14
    /// HyperLogLog read.
    public static let hyperLogLogRead: UInt8 = 15
    /// HyperLogLog modify.
    public static let hyperLogLogModify: UInt8 = 16
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
