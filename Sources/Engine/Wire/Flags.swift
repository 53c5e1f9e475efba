// The flag bits of a message header, by the protocol's names.

/// First flag byte.
package struct Info1: OptionSet, Sendable, BitwiseCopyable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Reads the record.
    package static let read = Info1(rawValue: 0x01)
    /// Wants all bins.
    package static let getAllBins = Info1(rawValue: 0x02)
    /// A query that expects few records.
    package static let shortQuery = Info1(rawValue: 0x04)
    /// A batch of rows.
    package static let batch = Info1(rawValue: 0x08)
    /// Shipped from another cluster.
    package static let xdr = Info1(rawValue: 0x10)
    /// Wants metadata only.
    package static let noBins = Info1(rawValue: 0x20)
    /// Wants duplicates resolved before the read.
    package static let consistencyLevelAll = Info1(rawValue: 0x40)
    /// May be answered compressed.
    package static let compressResponse = Info1(rawValue: 0x80)
}

/// Second flag byte.
package struct Info2: OptionSet, Sendable, BitwiseCopyable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Changes the record.
    package static let write = Info2(rawValue: 0x01)
    /// Deletes the record.
    package static let delete = Info2(rawValue: 0x02)
    /// The stored generation must be the sent one.
    package static let generation = Info2(rawValue: 0x04)
    /// The sent generation must be above the stored one.
    package static let generationGreater = Info2(rawValue: 0x08)
    /// A delete that must not come back.
    package static let durableDelete = Info2(rawValue: 0x10)
    /// The record must not exist.
    package static let createOnly = Info2(rawValue: 0x20)
    /// A long query may relax consistency.
    package static let relaxLongQuery = Info2(rawValue: 0x40)
    /// One answer for each operation, in order.
    package static let respondAllOperations = Info2(rawValue: 0x80)
}

/// Third flag byte.
package struct Info3: OptionSet, Sendable, BitwiseCopyable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The last message of a stream.
    package static let last = Info3(rawValue: 0x01)
    /// Do not wait for replicas.
    package static let commitLevelMaster = Info3(rawValue: 0x02)
    /// The client understands partition status; in an answer: this is one.
    package static let partitionDone = Info3(rawValue: 0x04)
    /// The record must exist.
    package static let updateOnly = Info3(rawValue: 0x08)
    /// Other bins go; the record may be new.
    package static let createOrReplace = Info3(rawValue: 0x10)
    /// Other bins go; the record must exist.
    package static let replaceOnly = Info3(rawValue: 0x20)
    /// Low bit of the strong consistency read mode.
    package static let readType = Info3(rawValue: 0x40)
    /// High bit of the strong consistency read mode.
    package static let readRelax = Info3(rawValue: 0x80)
}

/// Number of a message field.
package struct FieldNumber: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    package static let namespace = FieldNumber(rawValue: 0)
    package static let set = FieldNumber(rawValue: 1)
    package static let key = FieldNumber(rawValue: 2)
    package static let recordVersion = FieldNumber(rawValue: 3)
    package static let digest = FieldNumber(rawValue: 4)
    package static let transactionID = FieldNumber(rawValue: 5)
    package static let transactionDeadline = FieldNumber(rawValue: 6)
    package static let taskID = FieldNumber(rawValue: 7)
    package static let socketTimeout = FieldNumber(rawValue: 9)
    package static let recordsPerSecond = FieldNumber(rawValue: 10)
    package static let partitionIDs = FieldNumber(rawValue: 11)
    package static let digests = FieldNumber(rawValue: 12)
    package static let recordsMax = FieldNumber(rawValue: 13)
    package static let lastUpdate = FieldNumber(rawValue: 14)
    package static let indexName = FieldNumber(rawValue: 21)
    package static let indexRange = FieldNumber(rawValue: 22)
    package static let udfPackage = FieldNumber(rawValue: 30)
    package static let udfFunction = FieldNumber(rawValue: 31)
    package static let udfArguments = FieldNumber(rawValue: 32)
    package static let udfOperation = FieldNumber(rawValue: 33)
    package static let batch = FieldNumber(rawValue: 41)
    package static let batchWithSet = FieldNumber(rawValue: 42)
    package static let filter = FieldNumber(rawValue: 43)
}
