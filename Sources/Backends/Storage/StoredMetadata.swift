/// What a namespace stores beside its images: the limits that every backend holds, and one way to write the metadata
/// of all partitions as one value, for backends that have no better one.
public enum StoredMetadata {
    /// Largest blob of a namespace in bytes.
    public static let blobSizeMax = 1 << 20
    /// Largest metadata of a partition in bytes.
    public static let partitionSizeMax = 256

    /// - Throws: `tooLarge` if the blob of a namespace is.
    public static func check(blob: [UInt8]) throws(StorageError) {
        guard blob.count <= blobSizeMax else { throw .tooLarge(limitBytes: blobSizeMax) }
    }

    /// - Throws: `tooLarge` if the metadata of a partition is.
    public static func check(partitions: [[UInt8]]) throws(StorageError) {
        guard partitions.allSatisfy({ $0.count <= partitionSizeMax }) else {
            throw .tooLarge(limitBytes: partitionSizeMax)
        }
    }

    /// Each metadata behind its size in two bytes, the low one first.
    public static func encode(partitions: [[UInt8]]) -> [UInt8] {
        partitions.flatMap { [UInt8($0.count & 0xFF), UInt8($0.count >> 8)] + $0 }
    }

    /// What `encode` was given; of no bytes, no metadata.
    public static func decode(partitions bytes: [UInt8]) -> [[UInt8]] {
        var rest = bytes[...]
        var partitions: [[UInt8]] = []
        while let low = rest.popFirst(), let high = rest.popFirst() {
            let size = Int(high) << 8 | Int(low)
            partitions.append(Array(rest.prefix(size)))
            rest = rest.dropFirst(size)
        }
        return partitions
    }
}
