// Opens one namespace: the memory that its index lies in, its backend, its index. Invariants:
// 1. Memory that outlives the process is gone on from only if its backend says that it belongs to what is on the medium, and
//    the whole index was walked; else it is forgotten, and the log says why.
// 2. Memory is closed after the backend, as clean only if the backend has written out everything.
internal import Base
internal import Configuration
internal import Engine
internal import Index
internal import Logging
internal import Mount
internal import Storage
internal import SystemSegment

/// A namespace from its opening to its end. Main thread.
final class OpenNamespace {
    let namespace: Namespace
    /// Nil for ordinary memory.
    let memory: Segment?
    /// Nothing that was acknowledged is missing: the namespace can serve.
    private var isComplete = false

    init(_ namespace: Namespace, _ memory: Segment?) {
        self.namespace = namespace
        self.memory = memory
    }

    /// Index and backend hold what the medium does.
    func complete() throws(StorageError) {
        try memory?.complete()
        isComplete = true
    }

    /// Closes backend and memory; why the backend did not close.
    func close() -> StorageError? {
        var failure: StorageError?
        do throws(StorageError) { try namespace.backend.close() } catch { failure = error }
        memory?.close(isClean: failure == nil && isComplete)
        return failure
    }
}

/// What is needed to open a namespace, once or twice.
struct NamespaceOpening {
    let settings: NamespaceConfiguration
    let request: MountRequest
    let registry: BackendRegistry
    let place: IndexPlace
    let owner: String
    let epoch: Epoch
    let reactors: Int
    let log: Logger
    /// Records an index in ordinary memory has address space for; memory is taken as they come.
    static let recordsMax = 1 << 31
    /// The most that 2^32 - 1 entries take, with their buckets.
    private static let entriesByteCountMax = 172 << 30
    private static let linesByteCountMax = 80 << 30

    /// Why a namespace did not open.
    private enum Failure: Error {
        case storage(StorageError)
        /// What the memory holds is damaged: it can be opened without.
        case untrusted(String)
    }

    /// Opens all of it; with `coldReason` what the memory holds is forgotten first.
    func open(coldReason: String? = nil) throws(StartError) -> OpenNamespace {
        do throws(StorageError) {
            let memory = try place.open(
                settings, owner: owner, log: { [log] in log.info(.storage, $0) },
                warn: { [log] in log.warning(.storage, $0) })
            let failure: Failure
            do throws(Failure) { return try open(memory, coldReason) } catch { failure = error }
            memory?.close(isClean: false)
            switch failure {
            case .storage(let error): throw error
            case .untrusted(let sentence):
                guard coldReason == nil else { throw .medium(sentence) }
                return try reopen(sentence)
            }
        } catch {
            throw StartError("namespace \(settings.name) does not open: \(error.text)")
        }
    }

    private func reopen(_ coldReason: String) throws(StorageError) -> OpenNamespace {
        do throws(StartError) { return try open(coldReason: coldReason) } catch { throw .medium(error.message) }
    }

    private func open(_ memory: Segment?, _ coldReason: String?) throws(Failure) -> OpenNamespace {
        var request = request
        request.memory = memory
        let opened: (backend: any Backend, agreement: Agreement)
        do throws(StorageError) {
            if let coldReason { try memory?.startCold(because: coldReason) }
            opened = try Mount(registry).open(request)
        } catch {
            throw .storage(error)
        }
        let isWarm = opened.backend.warmStart != nil
        do throws(StorageError) {
            let index = try makeIndex(memory, isWarm: isWarm)
            let namespace = try Namespace(
                settings: NamespaceOpening.engineSettings(settings), agreement: opened.agreement, backend: opened.backend,
                index: index, epoch: epoch, reactors: reactors, memory: memory)
            return OpenNamespace(namespace, memory)
        } catch {
            try? opened.backend.close()
            if isWarm, case .medium(let sentence) = error { throw .untrusted(sentence) }
            throw .storage(error)
        }
    }

    private func makeIndex(_ memory: Segment?, isWarm: Bool) throws(StorageError) -> PrimaryIndex {
        do {
            guard let memory else { return try PrimaryIndex(heapFor: NamespaceOpening.recordsMax) }
            let entries = try RegionArena(memory.region("entries", capacity: NamespaceOpening.entriesByteCountMax))
            let lines = try RegionArena(memory.region("lines", capacity: NamespaceOpening.linesByteCountMax))
            return isWarm
                ? try PrimaryIndex(attachingTo: entries, lines: lines) : try PrimaryIndex(entries: entries, lines: lines)
        } catch let error as StorageError {
            throw error
        } catch let error as AttachFailure {
            throw .medium("the index is damaged: \(error)")
        } catch {
            throw .settings("there is no room for its index\(memory.map { " in \($0.path)" } ?? ""): \(error)")
        }
    }

    private static func engineSettings(_ configured: NamespaceConfiguration) -> NamespaceSettings {
        var settings = NamespaceSettings(name: configured.name)
        settings.defaultTimeToLiveSeconds = configured.defaultTtl
        settings.nsupPeriodSeconds = configured.nsupPeriod
        settings.allowTimeToLiveWithoutNsup = configured.allowTtlWithoutNsup
        settings.applyTimeToLiveReductions = configured.applyTtlReductions
        settings.readTouchPercent = configured.defaultReadTouchTtlPct
        settings.recordSizeMax = configured.maxRecordSize
        settings.pendingLimit = configured.transactionPendingLimit
        settings.disallowNullSetName = configured.disallowNullSetname
        settings.commitBeforeAnswer = configured.commitToDevice
        return settings
    }
}
