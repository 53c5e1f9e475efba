// The flag bits of a message header, by the protocol's names.

/// First flag byte.
package struct Info1: OptionSet, Sendable, BitwiseCopyable {
    package let rawValue: UInt8
    @inlinable package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The standard library's way through `SetAlgebra` is not specialised in other modules.
    @inlinable package func contains(_ other: Info1) -> Bool { rawValue & other.rawValue == other.rawValue }
    /// Reads the record.
    @inlinable package static var read: Info1 { Info1(rawValue: 0x01) }
    /// Wants all bins.
    @inlinable package static var getAllBins: Info1 { Info1(rawValue: 0x02) }
    /// A query that expects few records.
    @inlinable package static var shortQuery: Info1 { Info1(rawValue: 0x04) }
    /// A batch of rows.
    @inlinable package static var batch: Info1 { Info1(rawValue: 0x08) }
    /// Shipped from another cluster.
    @inlinable package static var xdr: Info1 { Info1(rawValue: 0x10) }
    /// Wants metadata only.
    @inlinable package static var noBins: Info1 { Info1(rawValue: 0x20) }
    /// Wants duplicates resolved before the read.
    @inlinable package static var consistencyLevelAll: Info1 { Info1(rawValue: 0x40) }
    /// May be answered compressed.
    @inlinable package static var compressResponse: Info1 { Info1(rawValue: 0x80) }
}

/// Second flag byte.
package struct Info2: OptionSet, Sendable, BitwiseCopyable {
    package let rawValue: UInt8
    @inlinable package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The standard library's way through `SetAlgebra` is not specialised in other modules.
    @inlinable package func contains(_ other: Info2) -> Bool { rawValue & other.rawValue == other.rawValue }
    /// Changes the record.
    @inlinable package static var write: Info2 { Info2(rawValue: 0x01) }
    /// Deletes the record.
    @inlinable package static var delete: Info2 { Info2(rawValue: 0x02) }
    /// The stored generation must be the sent one.
    @inlinable package static var generation: Info2 { Info2(rawValue: 0x04) }
    /// The sent generation must be above the stored one.
    @inlinable package static var generationGreater: Info2 { Info2(rawValue: 0x08) }
    /// A delete that must not come back.
    @inlinable package static var durableDelete: Info2 { Info2(rawValue: 0x10) }
    /// The record must not exist.
    @inlinable package static var createOnly: Info2 { Info2(rawValue: 0x20) }
    /// A long query may relax consistency.
    @inlinable package static var relaxLongQuery: Info2 { Info2(rawValue: 0x40) }
    /// One answer for each operation, in order.
    @inlinable package static var respondAllOperations: Info2 { Info2(rawValue: 0x80) }
}

/// Third flag byte.
package struct Info3: OptionSet, Sendable, BitwiseCopyable {
    package let rawValue: UInt8
    @inlinable package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The standard library's way through `SetAlgebra` is not specialised in other modules.
    @inlinable package func contains(_ other: Info3) -> Bool { rawValue & other.rawValue == other.rawValue }
    /// The last message of a stream.
    @inlinable package static var last: Info3 { Info3(rawValue: 0x01) }
    /// Do not wait for replicas.
    @inlinable package static var commitLevelMaster: Info3 { Info3(rawValue: 0x02) }
    /// The client understands partition status; in an answer: this is one.
    @inlinable package static var partitionDone: Info3 { Info3(rawValue: 0x04) }
    /// The record must exist.
    @inlinable package static var updateOnly: Info3 { Info3(rawValue: 0x08) }
    /// Other bins go; the record may be new.
    @inlinable package static var createOrReplace: Info3 { Info3(rawValue: 0x10) }
    /// Other bins go; the record must exist.
    @inlinable package static var replaceOnly: Info3 { Info3(rawValue: 0x20) }
    /// Low bit of the strong consistency read mode.
    @inlinable package static var readType: Info3 { Info3(rawValue: 0x40) }
    /// High bit of the strong consistency read mode.
    @inlinable package static var readRelax: Info3 { Info3(rawValue: 0x80) }
}

/// Number of a message field.
package struct FieldNumber: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    package let rawValue: UInt8
    @inlinable package init(rawValue: UInt8) { self.rawValue = rawValue }
    @inlinable package static var namespace: FieldNumber { FieldNumber(rawValue: 0) }
    @inlinable package static var set: FieldNumber { FieldNumber(rawValue: 1) }
    @inlinable package static var key: FieldNumber { FieldNumber(rawValue: 2) }
    @inlinable package static var recordVersion: FieldNumber { FieldNumber(rawValue: 3) }
    @inlinable package static var digest: FieldNumber { FieldNumber(rawValue: 4) }
    @inlinable package static var transactionID: FieldNumber { FieldNumber(rawValue: 5) }
    @inlinable package static var transactionDeadline: FieldNumber { FieldNumber(rawValue: 6) }
    @inlinable package static var taskID: FieldNumber { FieldNumber(rawValue: 7) }
    @inlinable package static var socketTimeout: FieldNumber { FieldNumber(rawValue: 9) }
    @inlinable package static var recordsPerSecond: FieldNumber { FieldNumber(rawValue: 10) }
    @inlinable package static var partitionIDs: FieldNumber { FieldNumber(rawValue: 11) }
    @inlinable package static var digests: FieldNumber { FieldNumber(rawValue: 12) }
    @inlinable package static var recordsMax: FieldNumber { FieldNumber(rawValue: 13) }
    @inlinable package static var lastUpdate: FieldNumber { FieldNumber(rawValue: 14) }
    @inlinable package static var indexName: FieldNumber { FieldNumber(rawValue: 21) }
    @inlinable package static var indexRange: FieldNumber { FieldNumber(rawValue: 22) }
    @inlinable package static var udfPackage: FieldNumber { FieldNumber(rawValue: 30) }
    @inlinable package static var udfFunction: FieldNumber { FieldNumber(rawValue: 31) }
    @inlinable package static var udfArguments: FieldNumber { FieldNumber(rawValue: 32) }
    @inlinable package static var udfOperation: FieldNumber { FieldNumber(rawValue: 33) }
    @inlinable package static var batch: FieldNumber { FieldNumber(rawValue: 41) }
    @inlinable package static var batchWithSet: FieldNumber { FieldNumber(rawValue: 42) }
    @inlinable package static var filter: FieldNumber { FieldNumber(rawValue: 43) }
}
