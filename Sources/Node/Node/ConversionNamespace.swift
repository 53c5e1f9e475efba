// One end of a conversion while it is open. Invariants:
// 1. Its scans tell the backend that every image is live: nothing on the medium is deleted or given up.
// 2. There is one shard, made after the index was filled, and kept until the backend is closed.
internal import Base
internal import Engine
internal import Glibc
internal import Index
internal import Logging
internal import Reactor
internal import Storage

/// See the invariants above. Main thread.
final class ConversionNamespace {
    private let opened: OpenNamespace
    /// Nil if the index was there already.
    private let start: ColdStart?
    let shard: any BackendShard
    private var isOpen = true

    private var namespace: Namespace { opened.namespace }
    private var backend: any Backend { opened.namespace.backend }

    private init(_ opened: OpenNamespace, _ start: ColdStart?, _ shard: any BackendShard) {
        self.opened = opened
        self.start = start
        self.shard = shard
    }

    /// What fills an index.
    struct Filling {
        /// For the log: `source`.
        let name: String
        /// Decides what has expired.
        let now: RecordTime
        /// Threads.
        let count: Int
        let signals: SignalSet
        let log: Logger
    }

    /// Opens `side` and brings its index up to what the medium holds. With `keepsMemory` it goes on from what its node has
    /// left in memory. Nil if a signal has asked to stop.
    static func open(
        _ side: ConversionSide, keepsMemory: Bool, bell: ConversionBell, _ filling: Filling
    ) throws(ConversionError) -> ConversionNamespace? {
        let opened = try side.open(keepsMemory: keepsMemory, filling.log)
        do {
            if let made = try fill(opened, bell, filling) { return made }
        } catch {
            _ = opened.close()
            throw conversionError(error, side)
        }
        _ = opened.close()
        return nil
    }

    private static func fill(
        _ opened: OpenNamespace, _ bell: ConversionBell, _ filling: Filling
    ) throws -> ConversionNamespace? {
        var start: ColdStart?
        switch try WarmStartRun.run(opened.namespace, threads: filling.count, filling.signals, filling.log) {
        case .serves: break
        case .stopAsked: return nil
        case .untrusted(let reason):
            throw ConversionError("the memory that its node has left is damaged: \(reason); start the node once more, so"
                + " that it builds its index from the medium, and stop it")
        case .cold:
            start = try read(opened.namespace, filling)
            if start == nil { return nil }
        }
        try opened.complete()
        return ConversionNamespace(opened, start, try bell.makeShard(of: opened.namespace.backend))
    }

    private static func conversionError(_ error: any Error, _ side: ConversionSide) -> ConversionError {
        switch error {
        case let error as ConversionError: ConversionError("\(side.file): namespace \(side.namespace): \(error.message)")
        case let error as StartError: ConversionError("\(side.file): \(error.message)")
        case let error as StorageError:
            ConversionError("\(side.file): namespace \(side.namespace) does not open: \(error.text)")
        default: ConversionError("\(side.file): no address space for the index: raise the limit (ulimit -v)")
        }
    }

    /// Reads the medium. Nil if a signal has asked to stop.
    private static func read(_ namespace: Namespace, _ filling: Filling) throws -> ColdStart? {
        let (name, count, log) = (filling.name, filling.count, filling.log)
        let begun = SystemClock.monotonic()
        let start = try ColdStart(
            namespace, recordsMax: NamespaceOpening.recordsMax, now: filling.now, log: { log.warning(.storage, $0) })
        let threads = HelperThreads(count: count)
        let failure = try threads.run(
            filling.signals, log, purpose: "reading the \(name)",
            body: { segment in
                do throws(StorageError) {
                    try namespace.backend.scan(segment: segment, of: count) { image in
                        _ = start.visit(image, worker: segment)
                        return threads.isStopAsked ? .stop : .live
                    }
                    return nil
                } catch {
                    return error
                }
            },
            note: { "{\(namespace.settings.name)} \(name): \(start.visited) images so far, \(start.bytes >> 20) MB" })
        if threads.isStopAsked { return nil }
        if let failure { throw ConversionError("the \(name) cannot be read: \(failure.text)") }
        guard start.refused == 0 else {
            throw ConversionError("\(start.refused) records of the \(name) have no room in the index, or there are too many"
                + " sets")
        }
        let lost = namespace.backend.statistics.lostPlaces
        start.settleTombstones(isComplete: lost == 0)
        let seconds = Double(SystemClock.monotonic().nanoseconds(since: begun) / 1_000_000) / 1000
        log.info(.storage, "{\(namespace.settings.name)} \(name): \(namespace.index.count) records in"
            + " \(start.visited) images (\(start.bytes >> 20) MB), read in \(seconds) s")
        if lost > 0 { log.warning(.storage, "{\(namespace.settings.name)} \(lost) places of the \(name) could not be read") }
        return start
    }

    // ---- What it holds ----

    var index: PrimaryIndex { namespace.index }
    /// Images on the medium when it was opened, whatever they were.
    var images: Int { start?.visited ?? 0 }
    /// Images that are not what was written.
    var damaged: Int { start?.damaged ?? 0 }
    /// Records that a cold start has left out because their time was up.
    var expired: Int { start?.expired ?? 0 }
    /// Places of the medium that could not be read, wholly or in part.
    var lostPlaces: Int { Int(backend.statistics.lostPlaces) }
    /// Deletes do not last here without tombstones.
    var needsTombstones: Bool {
        namespace.agreement.capabilities.isDisjoint(with: [.keyed, .deletesLast, .volatile])
    }

    /// The name of an entry's set; empty for none.
    func setName(_ entry: IndexEntry) -> String { entry.setID == 0 ? "" : namespace.sets.name(of: entry.setID).text }

    /// What the namespace keeps beside its records.
    func metadata() throws(StorageError) -> (blob: [UInt8], partitions: [[UInt8]]) {
        (try backend.loadNamespaceBlob(), try backend.loadPartitionMetadata())
    }

    func store(_ metadata: (blob: [UInt8], partitions: [[UInt8]])) throws(StorageError) {
        if !metadata.blob.isEmpty { try backend.storeNamespaceBlob(metadata.blob) }
        if !metadata.partitions.isEmpty { try backend.storePartitionMetadata(metadata.partitions) }
    }

    /// Why it cannot go on, if its backend says so.
    var fatal: String? { backend.statistics.fatal }

    /// Lets the medium go; what was placed is there at the next opening. Once: later calls do nothing.
    func close() throws(StorageError) {
        guard isOpen else { return }
        isOpen = false
        if let error = opened.close() { throw error }
    }
}
