// The fields by which a query says where to look and how far to go.
package import Base

/// A query's own fields, checked; a view into the request's bytes.
package struct QueryView: BitwiseCopyable {
    /// The client's name for the query (`trid`).
    package private(set) var taskID: UInt64 = 0
    /// Records per second over the whole node, 0 for no limit.
    package private(set) var recordsPerSecond: UInt32 = 0
    /// How long in milliseconds the client may take nothing, 0 for as long as it likes.
    package private(set) var socketTimeoutMilliseconds: UInt32 = 0
    /// Records at most, 0 for all.
    package private(set) var recordsMax: UInt64 = 0
    /// Partition numbers, two bytes each, little-endian.
    private var partitions = UnsafeRawBufferPointer(start: nil, count: 0)
    /// Digests to go on behind, 20 bytes each.
    private var digests = UnsafeRawBufferPointer(start: nil, count: 0)

    /// Why the fields of a request are no query.
    package enum Problem: Error, BitwiseCopyable {
        /// A size, a number or a combination that cannot be: 4.
        case malformed
        /// Neither partitions nor digests: 16.
        case noPartitions
    }

    /// Reads the fields of `request`. A foreground query names its partitions, a background query runs over all.
    /// - Throws: `malformed`, or `noPartitions` if it names none and has to.
    package init(_ request: RequestView, isBackground: Bool) throws(Problem) {
        taskID = try QueryView.integer(request, .taskID)
        recordsPerSecond = try QueryView.integer(request, .recordsPerSecond)
        socketTimeoutMilliseconds = try QueryView.integer(request, .socketTimeout)
        recordsMax = try QueryView.integer(request, .recordsMax)
        if isBackground { return }
        if let value = request.field(.partitionIDs) {
            guard !value.isEmpty, value.count % 2 == 0, value.count <= 2 * PartitionID.count else { throw .malformed }
            partitions = value
        }
        if let value = request.field(.digests) {
            guard !value.isEmpty, value.count % Digest.byteCount == 0,
                value.count <= Digest.byteCount * PartitionID.count
            else { throw .malformed }
            digests = value
        }
        if partitions.isEmpty, digests.isEmpty { throw .noPartitions }
    }

    private static func integer<Number: FixedWidthInteger & BitwiseCopyable>(
        _ request: RequestView, _ field: FieldNumber
    ) throws(Problem) -> Number {
        guard let value = request.field(field) else { return 0 }
        guard value.count == MemoryLayout<Number>.size, let base = value.baseAddress else { throw .malformed }
        return base.bigEndian(Number.self)
    }

    /// How many partitions are named.
    package var partitionCount: Int { partitions.count / 2 + digests.count / Digest.byteCount }

    /// The partition named at `place`, and the digest to go on behind if there is one; nil for a number that no partition
    /// has.
    package subscript(place: Int) -> (partition: PartitionID, after: Digest?)? {
        if place < partitions.count / 2 {
            let number = UInt16(partitions[2 * place]) | UInt16(partitions[2 * place + 1]) << 8
            return Int(number) < PartitionID.count ? (PartitionID(number), nil) : nil
        }
        let digest = Digest(digests.baseAddress! + (place - partitions.count / 2) * Digest.byteCount)
        return (digest.partition, digest)
    }
}
