import Base
import PMEM
import Storage
import Synchronization
import TestSupport

/// A machine with files of simulated persistent memory, by path, that can lose power in the middle of anything. Any thread.
final class SimulatedPmem: PmemOpener, @unchecked Sendable {
    private struct State {
        var files: [(path: String, region: SimulatedRegion)] = []
        /// Paths that cannot be opened, and why.
        var refused: [(path: String, error: PmemOpenError)] = []
        var seed: UInt64
        var persistsLeft: Int?
        var crashSeed: UInt64 = 0
        var afterCrash: [(path: String, image: [UInt8])]?
        var persistCount = 0
        /// Paths of files that are locked.
        var locked: [String] = []
    }
    private let state: Mutex<State>
    /// Called at the begin of each `persist`: the moment before something is safe. One thread.
    var beforePersist: (() -> Void)?

    init(seed: UInt64) { state = Mutex(State(seed: seed)) }

    private init(_ images: [(path: String, image: [UInt8])], seed: UInt64) {
        state = Mutex(State(seed: seed))
        for (path, image) in images { set(path, image) }
    }

    /// Puts a file of these bytes at a path.
    func set(_ path: String, _ image: [UInt8]) {
        let region = state.withLock { state in
            state.seed &+= 1
            state.files.removeAll { $0.path == path }
            let region = SimulatedRegion(capacity: image.count, seed: state.seed, image: image)
            state.files.append((path, region))
            return region
        }
        region.beforePersist = { [weak self] in self?.willPersist() }
    }

    func remove(_ path: String) { state.withLock { $0.files.removeAll { $0.path == path } } }

    func region(_ path: String) -> SimulatedRegion? {
        state.withLock { state in state.files.first { $0.path == path }?.region }
    }

    var paths: [String] { state.withLock { $0.files.map(\.path) } }
    var persistCount: Int { state.withLock { $0.persistCount } }

    func refuse(_ path: String, _ error: PmemOpenError?) {
        state.withLock { state in
            state.refused.removeAll { $0.path == path }
            if let error { state.refused.append((path, error)) }
        }
    }

    func open(_ request: PmemRequest) throws(PmemOpenError) -> PmemFile {
        if let refusal = state.withLock({ $0.refused.first { $0.path == request.path } }) { throw refusal.error }
        if let region = region(request.path) { return try file(request, region) }
        guard !request.isLookedAt, request.byteCount > 0 else { throw PmemOpenError("does not exist", isMissing: true) }
        set(request.path, [UInt8](repeating: 0, count: request.byteCount))
        guard let region = region(request.path) else { throw PmemOpenError("cannot be made") }
        return try file(request, region)
    }

    private func file(_ request: PmemRequest, _ region: SimulatedRegion) throws(PmemOpenError) -> PmemFile {
        if request.isLookedAt { return PmemFile(region: region, unlock: {}) }
        try state.withLock { (state) throws(PmemOpenError) in
            guard !state.locked.contains(request.path) else { throw PmemOpenError("is in use") }
            state.locked.append(request.path)
        }
        return PmemFile(region: region) { [weak self] in
            self?.state.withLock { $0.locked.removeAll { $0 == request.path } }
        }
    }

    /// Paths of files that are locked.
    var locked: [String] { state.withLock { $0.locked } }

    // ---- Crashes ----

    /// Lets each line that is not safe reach the medium now, with this chance in percent.
    func evict(percent: Int) {
        for path in paths { region(path)?.evict(percent: percent) }
    }

    /// The next crash comes when `persists` more have been begun; that one has done nothing yet then.
    func prepareCrash(after persists: Int, seed: UInt64) {
        state.withLock { ($0.persistsLeft, $0.crashSeed, $0.afterCrash) = (persists, seed, nil) }
    }

    func cancelCrash() { state.withLock { ($0.persistsLeft, $0.afterCrash) = (nil, nil) } }

    private func willPersist() {
        let isNow = state.withLock { state in
            state.persistCount += 1
            guard let left = state.persistsLeft else { return false }
            state.persistsLeft = left > 0 ? left - 1 : nil
            return left == 0
        }
        beforePersist?()
        if isNow {
            let images = images { $0.crashImage(seed: $1) }
            state.withLock { $0.afterCrash = images }
        }
    }

    private func images(_ image: (SimulatedRegion, UInt64) -> [UInt8]) -> [(path: String, image: [UInt8])] {
        let (files, seed) = state.withLock { ($0.files, $0.crashSeed) }
        return files.enumerated().map { ($1.path, image($1.region, seed &+ UInt64($0))) }
    }

    /// The machine after a power failure: at the moment that was prepared, if that has come, else now.
    func afterPowerFailure(seed: UInt64) -> SimulatedPmem {
        if let prepared = state.withLock({ $0.afterCrash }) { return SimulatedPmem(prepared, seed: seed) }
        state.withLock { $0.crashSeed = seed }
        return SimulatedPmem(images { $0.crashImage(seed: $1) }, seed: seed)
    }

    /// The machine after the process was killed: every store is there, and what was not persisted may still be lost with the
    /// power.
    func afterKill(seed: UInt64 = 1) -> SimulatedPmem {
        let killed = SimulatedPmem([], seed: state.withLock { $0.seed })
        for path in paths {
            guard let region = region(path) else { continue }
            killed.set(path, region.crashImage(seed: seed))
            killed.region(path)?.base.copyMemory(from: region.base, byteCount: region.backedByteCount)
        }
        return killed
    }
}

/// Lines that a backend has written to the log. Any thread.
final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    func add(_ line: String) { lines.withLock { $0.append(line) } }
    func clear() { lines.withLock { $0 = [] } }
    var all: [String] { lines.withLock { $0 } }
    func contain(_ part: String) -> Bool { all.contains { $0.contains(part) } }
}

/// Opens backends as the node would.
enum PmemTestOpening {
    static let namespace = "conformance"

    /// `given` comes after the schema's defaults and wins.
    static func open(
        _ descriptor: BackendDescriptor, _ given: [(name: String, value: String)], _ lines: LogLines,
        namespace: String = namespace, memory: (any KeptMemory)? = nil
    ) throws(StorageError) -> any Backend {
        try descriptor.open(request(descriptor, given, lines, namespace: namespace, memory: memory))
    }

    static func request(
        _ descriptor: BackendDescriptor, _ given: [(name: String, value: String)], _ lines: LogLines,
        namespace: String = namespace, memory: (any KeptMemory)? = nil
    ) -> OpenRequest {
        lines.clear()
        let agreement = Agreement(
            backend: descriptor.name, format: descriptor.formats.upperBound, capabilities: descriptor.capabilities)
        return OpenRequest(
            namespace: namespace, settings: BackendSettings([("defrag-lwm-pct", "50")] + given), agreement: agreement,
            memory: memory, log: { lines.add($0) })
    }
}
