internal import Base
internal import Index

/// All records of an index that nobody changes, partition by partition. One thread.
final class ConversionWalk {
    private static let sliceRecords = 256
    private let index: PrimaryIndex
    private let room = UnsafeMutableBufferPointer<IndexedRecord>.allocate(capacity: sliceRecords)
    private var count = 0
    private var place = 0
    private var partition = 0
    private var cursor = IndexCursor()

    init(_ index: PrimaryIndex) { self.index = index }

    deinit { room.deallocate() }

    /// The next one; nil when all were given.
    func next() -> IndexedRecord? {
        while place == count {
            if cursor.isDone {
                partition += 1
                cursor = IndexCursor()
            }
            guard partition < PartitionID.count else { return nil }
            count = index.slice(PartitionID(UInt16(partition)), &cursor, into: room)
            place = 0
        }
        defer { place += 1 }
        return room[place]
    }
}
