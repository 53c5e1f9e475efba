// Blob and partition metadata when nothing goes wrong.
internal import Base
internal import Storage

enum MetadataCases {
    private static let blobSizeMax = 1 << 20
    private static let partitionSizeMax = 256

    /// Empty at first; then what was stored last, up to 1 MiB, shorter and empty again.
    static func blob(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            try session.checkMetadata()
            for (salt, byteCount) in [1, 100, 4096, blobSizeMax, 70_001, 0, 17].enumerated() {
                try session.storeBlob(TestImage.content(UInt64(salt), byteCount: byteCount))
                try session.checkMetadata()
                try reopen(session)
            }
        }
    }

    /// Empty at first; then what was stored last, 256 bytes for each of the 4096 partitions.
    static func partitions(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            try session.checkMetadata()
            for (salt, byteCount) in [8, partitionSizeMax, 31, 0, partitionSizeMax].enumerated() {
                try session.storePartitions(Session.partitions(UInt64(salt), byteCount: byteCount))
                try session.checkMetadata()
                try reopen(session)
            }
            // Partitions of different sizes, most of them empty.
            let mixed = (0..<PartitionID.count).map { number in
                number % 7 == 0 ? TestImage.content(UInt64(number), byteCount: number % (partitionSizeMax + 1)) : []
            }
            try session.storePartitions(mixed)
            try session.storeBlob([1, 2, 3])
            try session.checkMetadata()
            try reopen(session)
        }
    }

    private static func reopen(_ session: Session) throws(Failure) {
        guard !session.promises.contains(.volatile) else { return }
        try session.closeAndReopen(segments: 1)
    }

    /// What is larger than the contract allows is refused as too large; what was stored before stays.
    static func limits(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            try session.storeBlob([7, 7, 7])
            try session.storePartitions(Session.partitions(1, byteCount: 16))
            let backend = session.backend
            try expectTooLarge("a blob of 1 MiB and a byte") { () throws(StorageError) in
                try backend.storeNamespaceBlob([UInt8](repeating: 1, count: blobSizeMax + 1))
            }
            var partitions = Session.partitions(2, byteCount: 16)
            partitions[PartitionID.count - 1] = [UInt8](repeating: 1, count: partitionSizeMax + 1)
            try expectTooLarge("metadata of 257 bytes") { [partitions] () throws(StorageError) in
                try backend.storePartitionMetadata(partitions)
            }
            try session.checkMetadata()
        }
    }

    private static func expectTooLarge(_ what: String, _ body: () throws(StorageError) -> Void) throws(Failure) {
        do throws(StorageError) {
            try body()
        } catch {
            if case .tooLarge = error { return }
            throw Failure(text: "\(what) was refused, but with \(error)")
        }
        throw Failure(text: "\(what) was taken")
    }
}
