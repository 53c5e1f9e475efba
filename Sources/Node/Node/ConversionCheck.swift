internal import Base
internal import Index
internal import Logging
internal import Storage

/// Reads every record back from the target, as its own cold start has found it, and compares all bytes.
final class ConversionCheck: ConversionStep {
    private static let linesMax = 20
    let shard: any BackendShard
    private let target: ConversionNamespace
    private let log: Logger
    /// What the target has given and is right.
    private(set) var sum = ConversionSum()
    /// Records that are missing or not the same.
    private(set) var differences = 0

    init(_ target: ConversionNamespace, _ log: Logger) {
        shard = target.shard
        self.target = target
        self.log = log
    }

    func begin(_ record: IndexedRecord, _ image: UnsafeRawBufferPointer, _ tag: Tag) throws(StorageError) -> Bool {
        guard let reference = target.index.find(record.digest) else {
            differs(record, "is not in the target")
            return false
        }
        let entry = target.index.entry(reference)
        let answer: ReadAnswer
        do throws(StorageError) {
            answer = try shard.read(
                record.digest, at: Location(rawValue: entry.location), byteCount: entry.byteCount, tag: tag)
        } catch {
            guard error != .overloaded else { throw error }
            differs(record, "cannot be read from the target: \(error.text)")
            return false
        }
        switch answer {
        case .pending: return true
        case .here(let bytes): compare(record, image, bytes)
        case .absent: differs(record, "is not in the target")
        }
        return false
    }

    func finish(
        _ record: IndexedRecord, _ image: UnsafeRawBufferPointer, _ result: Completion.Result
    ) throws(StorageError) {
        switch result {
        case .read(let bytes): compare(record, image, bytes)
        case .absent: differs(record, "is not in the target")
        case .failed(let error):
            guard error != .overloaded else { throw error }
            differs(record, "cannot be read from the target: \(error.text)")
        case .placed, .done: preconditionFailure("a read ends with bytes")
        }
    }

    private func compare(_ record: IndexedRecord, _ image: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer) {
        guard let copy = ConversionSum.image(in: bytes, of: record.digest), copy.equals(image) else {
            return differs(record, "has other bytes in the target than in the source")
        }
        sum.add(record.digest, copy)
    }

    private func differs(_ record: IndexedRecord, _ what: String) {
        differences += 1
        if differences <= ConversionCheck.linesMax { log.warning(.storage, "record \(record.digest) \(what)") }
    }

    func turn(isLast: Bool) throws(StorageError) {}

    var isBusy: Bool { false }

    var isPressed: Bool { false }

    func finish(_ result: Completion.Result) throws(StorageError) {}
}
