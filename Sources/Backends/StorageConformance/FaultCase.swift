// Errors in every call: the same short history again and again, each time with another operation on the medium failing.
internal import Base
internal import Storage

enum FaultCase {
    private static let faultsMax = 1000

    static func run(_ context: Context) throws(CaseEnd) {
        var struck = 0
        for place in 0..<faultsMax {
            guard let wasStruck = try one(context, place, .reopen(segments: 1)) else {
                throw .skipped("the subject cannot inject faults")
            }
            _ = try one(context, place, .crash(seed: UInt64(place), segments: 1))
            // The history was over before the fault: there is no further place for one.
            guard wasStruck else { break }
            struck += 1
            context.progress(place, of: faultsMax, "faults")
        }
        guard struck > 0 else { throw .failed("no fault has struck: the history never touched the medium", history: []) }
    }

    /// One history with one fault; whether it struck, nil if there are no faults.
    private static func one(_ context: Context, _ place: Int, _ ending: Operation) throws(CaseEnd) -> Bool? {
        do throws(Failure) {
            let session = try Session(context.subject)
            defer { session.abandon() }
            // With faults every typed error is right; wrong bytes and lost images are not.
            session.tolerates = { _ in true }
            guard context.subject.injectFault(after: place) else { return nil }
            for operation in history { try session.perform(operation) }
            let wasStruck = !context.subject.endFaults()
            try finish(session, ending)
            try whileOpening(session, place)
            return wasStruck
        } catch {
            throw .failed(
                "with operation \(place) on the medium failing: \(error.text)", history: (history + [ending]).map(\.words))
        }
    }

    /// Whatever was acknowledged must be there after a restart, what was committed also after a crash.
    private static func finish(_ session: Session, _ ending: Operation) throws(Failure) {
        try session.perform(ending)
        session.refuseNothing()
        try session.scanAndCompare(segments: 1)
        try session.perform(.reopen(segments: 1))
    }

    /// The same fault while the medium is opened: that may fail, but once the medium is well again everything is there.
    private static func whileOpening(_ session: Session, _ place: Int) throws(Failure) {
        if let error = try session.close() { throw Failure(text: "close failed without a fault: \(error)") }
        _ = session.subject.injectFault(after: place)
        var opened: (any Backend)?
        do throws(StorageError) { opened = try session.subject.reopen(after: .close) } catch { opened = nil }
        _ = session.subject.endFaults()
        if let opened { try trying("close") { () throws(StorageError) in try opened.close() } }
        try session.reopen(after: .close, segments: 1)
    }

    /// A little of everything, with commits, deletions, metadata, compaction and a restart.
    private static let history: [Operation] = {
        var operations: [Operation] = []
        for number in 0..<6 {
            operations.append(.append(number, byteCount: 300 + 100 * number, shard: number % 2))
            if number % 2 == 0 { operations += [.settle, .commit(number, shard: 0)] }
        }
        operations += [.settle, .storeBlob(byteCount: 200, salt: 1), .storePartitions(byteCount: 8, salt: 2), .loadMetadata]
        for number in 0..<4 { operations += [.read(number, shard: 1), .append(number, byteCount: 500, shard: 1)] }
        operations += [.settle, .commit(1, shard: 1), .delete(2, shard: 0), .settle, .commit(2, shard: 0), .settle]
        operations += [.compact(shard: 0, byteBudget: 1 << 16), .turn(shard: 0), .read(5, shard: 0), .settle]
        return operations
    }()
}
