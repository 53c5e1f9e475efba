internal import Base
internal import Index
internal import Storage

/// Appends every image to the target as it is, and commits now and then, so that a failing medium is noticed early. What was
/// placed lasts when the target is closed.
final class ConversionCopy: ConversionStep {
    private static let commitBytes = 64 << 20
    let shard: any BackendShard
    /// What the target has placed.
    private(set) var sum = ConversionSum()
    private var committedBytes = 0
    private var isCommitting = false
    private var isCommitted = false
    /// The last commit was refused, and is to be asked for again.
    private var isRefused = false
    private var last: Digest?

    init(_ target: ConversionNamespace) { shard = target.shard }

    func begin(_ record: IndexedRecord, _ image: UnsafeRawBufferPointer, _ tag: Tag) throws(StorageError) -> Bool {
        let stream: Stream = record.entry.kind == .live ? .fresh : .deleted
        guard case .placed = try shard.append(record.digest, image, stream: stream, tag: tag) else { return true }
        placed(record, image)
        return false
    }

    func finish(
        _ record: IndexedRecord, _ image: UnsafeRawBufferPointer, _ result: Completion.Result
    ) throws(StorageError) {
        switch result {
        case .placed: placed(record, image)
        case .failed(let error): throw error
        case .read, .absent, .done: preconditionFailure("an append ends with its place")
        }
    }

    private func placed(_ record: IndexedRecord, _ image: UnsafeRawBufferPointer) {
        sum.add(record.digest, image)
        last = record.digest
    }

    func turn(isLast: Bool) throws(StorageError) {
        let isDue = isLast ? !isCommitted : sum.bytes >= committedBytes + ConversionCopy.commitBytes
        guard !isCommitting, isDue, let last else { return }
        isCommitting = true
        isRefused = false
        do throws(StorageError) {
            let answer = try shard.commit(last, tag: ConversionPass.stepTag)
            committedBytes = sum.bytes
            isCommitted = isLast
            if case .done = answer { isCommitting = false }
        } catch {
            isCommitting = false
            isRefused = error == .overloaded
            guard isRefused else { throw error }
        }
    }

    var isBusy: Bool { isCommitting || isRefused }

    var isPressed: Bool { shard.pressure >= .high }

    func finish(_ result: Completion.Result) throws(StorageError) {
        isCommitting = false
        if case .failed(let error) = result { throw error }
    }
}
