// Opens one namespace: the memory that its index lies in, its backend, its index. Invariants:
// 1. Memory that outlives the process is gone on from only if its backend says that it belongs to what is on the medium, and
//    the whole index was walked; else it is forgotten, and the log says why.
// 2. Memory is closed after the backend, as clean only if the backend has written out everything.
// 3. Shared memory that nobody has asked for is no reason not to start, unless it may hold writes that are nowhere else.
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

    /// Closes the backend and removes the memory, of which nothing counts: it is not complete.
    func closeForgetting(_ log: Logger) {
        precondition(!isComplete, "what is served from is not forgotten")
        let name = namespace.settings.name
        do throws(StorageError) {
            try namespace.backend.close()
        } catch {
            log.warning(.storage, "{\(name)} does not close: \(error.text)")
        }
        if let memory { NamespaceOpening.remove(memory, name, log) }
    }

    /// Why so many records are missing in the index after a cold start. `mounts` are those of its memory.
    func noRoom(for count: Int, in mounts: [String]) -> String {
        guard let memory else {
            return "\(count) records have no room in the index, or there are too many sets; they are still on the medium"
        }
        let places = mounts.joined(separator: ", ")
        return "\(count) records have no room in the index (index-type \(memory.name) on \(places)), or there are too many"
            + " sets; they are still on the medium. Make \(places) larger, or name one mount more, or use index-type heap"
    }
}

/// What is needed to open a namespace, once or twice.
struct NamespaceOpening {
    let settings: NamespaceConfiguration
    let request: MountRequest
    let registry: BackendRegistry
    var place: IndexPlace
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
        do throws(StorageError) { return try tryOpen(coldReason) } catch { throw startError(error) }
    }

    /// Opens it in ordinary memory: what it would have lain in by default has a problem.
    func openInOrdinaryMemory(because problem: String) throws(StartError) -> OpenNamespace {
        do throws(StorageError) { return try tryInOrdinaryMemory(problem) } catch { throw startError(error) }
    }

    private func startError(_ error: StorageError) -> StartError {
        StartError("namespace \(settings.name) does not open: \(error.text)")
    }

    private func tryOpen(_ coldReason: String?) throws(StorageError) -> OpenNamespace {
        let memory: Segment?
        do throws(StorageError) {
            memory = try place.open(
                settings, owner: owner, log: { [log] in log.info(.storage, $0) },
                warn: { [log] in log.warning(.storage, $0) })
        } catch {
            guard case .shmemByDefault(let isLeft) = place else { throw error }
            guard !isLeft else { throw NamespaceOpening.unreachable(error) }
            return try tryInOrdinaryMemory(error.text)
        }
        let failure: Failure
        do throws(Failure) { return try open(memory, coldReason) } catch { failure = error }
        switch failure {
        case .storage(let error):
            // A key is there only if there is something to go on from.
            guard let memory, place.isDefault, memory.sessionKeys.isEmpty else {
                memory?.close(isClean: false)
                throw error
            }
            NamespaceOpening.remove(memory, settings.name, log)
            return try tryInOrdinaryMemory(error.text)
        case .untrusted(let sentence):
            memory?.close(isClean: false)
            guard coldReason == nil else { throw .medium(sentence) }
            return try tryOpen(sentence)
        }
    }

    private func tryInOrdinaryMemory(_ problem: String) throws(StorageError) -> OpenNamespace {
        var opening = self
        opening.place = .heap
        let opened = try opening.tryOpen(nil)
        log.warning(.storage, "{\(settings.name)} \(problem). For now \(IndexPlace.heapConsequence)")
        return opened
    }

    /// An index of before cannot be had: starting without it could lose what nobody has written out.
    private static func unreachable(_ error: StorageError) -> StorageError {
        .medium(error.text + ". The index of an earlier run is there, perhaps with writes that are nowhere else; to start"
            + " without it write index-type heap")
    }

    /// Removes memory that holds nothing which counts.
    static func remove(_ memory: Segment, _ name: String, _ log: Logger) {
        do throws(StorageError) { try memory.remove() } catch { log.warning(.storage, "{\(name)} \(error.text)") }
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
        settings.numbers = LiveNamespaceSettings(configured)
        settings.commitBeforeAnswer = configured.commitToDevice
        return settings
    }
}
