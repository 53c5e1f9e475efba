// A keyed backend for the kit's own tests: a dictionary with a copy of what was committed, and ways to break it. Invariants:
// 1. `states[digest]` is what a digest had since it was last committed, oldest first; the first is what must outlast a
//    crash, the last is now.
// 2. A crash keeps one state of each digest, drawn by its seed.
import Base
import Storage
import StorageConformance
import Synchronization

/// How the keyed backend is broken.
enum KeyedFlaw: String, CaseIterable, Sendable {
    /// Now and then a commit does nothing.
    case forgetsCommit
    /// Now and then a read gives the image before.
    case returnsStaleBytes
    /// Now and then a removal does nothing to what a restart finds.
    case losesRemove
    /// Bytes lent by a read are overwritten by the next append.
    case spoilsLentBytes
    /// Now and then a completion comes twice.
    case answersTwice
    /// A commit that the medium has failed answers that it is done.
    case hidesErrors
    /// A scan visits every image again at its end.
    case scansTwice
    /// A scan does not delete what is called stale.
    case ignoresStale
    /// A scan deletes what is called stale, even if it has been replaced since it was visited.
    case deletesReplaced
    /// An append keeps the caller's buffer and looks at it only in the next poll.
    case copiesLate
}

/// What outlives the backend.
final class KeyedMedium: Sendable {
    typealias Image = (location: Location, bytes: [UInt8])

    struct State {
        var states: [Digest: [Image?]] = [:]
        var before: [Digest: Image] = [:]
        var lost: [Digest: Image] = [:]
        var blob: [UInt8] = []
        var partitions: [[UInt8]] = []
        var operationsToFault: Int?
        var calls = 0
    }

    let state = Mutex(State())
    let versions = VersionCounter()
    let byteCountMax: Int

    init(byteCountMax: Int) { self.byteCountMax = byteCountMax }

    /// Every operation on the medium passes here.
    func use<Value>(_ body: (inout State) throws(StorageError) -> Value) throws(StorageError) -> Value {
        try state.withLock { (state) throws(StorageError) in
            state.calls += 1
            if let left = state.operationsToFault {
                state.operationsToFault = left > 0 ? left - 1 : nil
                if left == 0 { throw .device(errno: 5, operation: "test") }
            }
            return try body(&state)
        }
    }

    func usedBytes(_ state: borrowing State) -> Int {
        var sum = 0
        for (_, states) in state.states { sum += Envelope.storedByteCount((states.last ?? nil)?.bytes.count ?? 0) }
        return sum
    }

    /// Draws what a crash leaves; `quiet`: the end was a clean one.
    func end(seed: UInt64, isClean: Bool) {
        var random = SeededRandom(seed: seed)
        state.withLock { state in
            for digest in state.states.keys.sorted() {
                guard let states = state.states[digest] else { continue }
                let kept = isClean ? states.last ?? nil : states.randomElement(using: &random) ?? nil
                state.states[digest] = [kept ?? state.lost[digest]]
            }
            state.before = [:]
            state.lost = [:]
            state.operationsToFault = nil
        }
    }
}

final class KeyedBackend: Backend {
    let medium: KeyedMedium
    let flaw: KeyedFlaw?

    init(_ medium: KeyedMedium, _ flaw: KeyedFlaw?) {
        self.medium = medium
        self.flaw = flaw
    }

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard { KeyedShard(medium, flaw) }

    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        var digests = try medium.use { (state) throws(StorageError) in state.states.keys.sorted() }
        if flaw == .scansTwice { digests += digests }
        for digest in digests where Int(digest.low % UInt64(count)) == segment {
            let image = try medium.use { (state) throws(StorageError) in state.states[digest]?.last ?? nil }
            guard let image else { continue }
            let decision = image.bytes.withUnsafeBytes {
                visit(ScannedImage(digest: digest, location: image.location, image: $0, sequence: 0))
            }
            if case .stop = decision { return }
            guard case .stale = decision, flaw != .ignoresStale else { continue }
            try medium.use { (state) throws(StorageError) in
                let now = (state.states[digest]?.last ?? nil)?.location
                if now == image.location || flaw == .deletesReplaced { state.states[digest]?.append(nil) }
            }
        }
    }

    func loadNamespaceBlob() throws(StorageError) -> [UInt8] {
        try medium.use { (state) throws(StorageError) in state.blob }
    }

    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {
        guard bytes.count <= 1 << 20 else { throw .tooLarge(limitBytes: 1 << 20) }
        try medium.use { (state) throws(StorageError) in state.blob = bytes }
    }

    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] {
        try medium.use { (state) throws(StorageError) in state.partitions }
    }

    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        guard metadata.allSatisfy({ $0.count <= 256 }) else { throw .tooLarge(limitBytes: 256) }
        try medium.use { (state) throws(StorageError) in state.partitions = metadata }
    }

    var statistics: BackendStatistics {
        var figures = BackendStatistics()
        medium.state.withLock { state in
            figures.totalBytes = UInt64(medium.byteCountMax)
            figures.usedBytes = UInt64(medium.usedBytes(state))
        }
        figures.availableBytes = figures.totalBytes - figures.usedBytes
        return figures
    }

    func close() throws(StorageError) {}
}

/// Answers at once, or with the next poll: every third call.
private final class KeyedShard: BackendShard {
    private let medium: KeyedMedium
    private let flaw: KeyedFlaw?
    private var ended: [Completion] = []
    private var lent: [UnsafeMutableRawBufferPointer] = []
    private var late: [(Digest, Location, UnsafeRawBufferPointer)] = []
    private var calls = 0

    init(_ medium: KeyedMedium, _ flaw: KeyedFlaw?) {
        self.medium = medium
        self.flaw = flaw
    }

    deinit { for bytes in lent { bytes.deallocate() } }

    /// Whether a flaw shows in this call.
    private func shows(_ flaw: KeyedFlaw, every count: Int = 5) -> Bool { self.flaw == flaw && calls % count == 0 }

    private func isLate(_ tag: Tag, _ result: Completion.Result) -> Bool {
        calls += 1
        guard calls % 3 == 0 else { return false }
        ended.append(Completion(tag: tag, result: result))
        if shows(.answersTwice, every: 9) { ended.append(Completion(tag: tag, result: result)) }
        return true
    }

    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer {
        let limit = KeyedSubject.limits.imageSizeMax
        guard image.count <= limit else { throw .tooLarge(limitBytes: limit) }
        let location = medium.versions.next()
        if flaw == .spoilsLentBytes { for bytes in lent { bytes.initializeMemory(as: UInt8.self, repeating: 0) } }
        if flaw == .copiesLate {
            late.append((digest, location, image))
            ended.append(Completion(tag: tag, result: .placed(location)))
            return .pending
        }
        try store(digest, location, Array(image))
        return isLate(tag, .placed(location)) ? .pending : .placed(location)
    }

    private func store(_ digest: Digest, _ location: Location, _ bytes: [UInt8]) throws(StorageError) {
        try medium.use { (state) throws(StorageError) in
            guard medium.usedBytes(state) + bytes.count <= medium.byteCountMax else { throw .outOfSpace }
            let states = state.states[digest] ?? [nil]
            if let before = states.last ?? nil { state.before[digest] = before }
            state.states[digest] = states + [(location, bytes)]
        }
    }

    func read(_ digest: Digest, at location: Location, byteCount: Int, tag: Tag) throws(StorageError) -> ReadAnswer {
        let found = try medium.use { (state) throws(StorageError) in
            let now = state.states[digest]?.last ?? nil
            return shows(.returnsStaleBytes) ? state.before[digest] ?? now : now
        }
        guard let found else { return isLate(tag, .absent) ? .pending : .absent }
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: found.bytes.count, alignment: 16)
        bytes.copyBytes(from: found.bytes)
        lent.append(bytes)
        let image = UnsafeRawBufferPointer(bytes)
        calls += 1
        return .here(image)
    }

    func remove(_ digest: Digest, at location: Location, tag: Tag) throws(StorageError) -> DoneAnswer {
        try medium.use { (state) throws(StorageError) in
            let states = state.states[digest] ?? [nil]
            if shows(.losesRemove, every: 3), let image = states.last ?? nil { state.lost[digest] = image }
            state.states[digest] = states + [nil]
        }
        return isLate(tag, .done) ? .pending : .done
    }

    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer {
        do throws(StorageError) {
            try medium.use { (state) throws(StorageError) in
                guard let states = state.states[digest], !shows(.forgetsCommit) else { return }
                state.states[digest] = [states.last ?? nil]
            }
        } catch {
            guard flaw == .hidesErrors else { throw error }
        }
        return isLate(tag, .done) ? .pending : .done
    }

    func poll(_ receive: (borrowing Completion) -> Void) {
        for (digest, location, image) in late {
            do throws(StorageError) { try store(digest, location, Array(image)) } catch { preconditionFailure("\(error)") }
        }
        late = []
        let all = ended
        ended = []
        for completion in all { receive(completion) }
    }

    func turnEnded(sleeping: Bool) {
        for bytes in lent { bytes.deallocate() }
        lent = []
    }
}

final class KeyedSubject: ConformanceSubject {
    static let limits = BackendLimits(imageSizeMax: 1 << 20, locationBits: 44, atomicWriteSize: 0)
    let descriptor: BackendDescriptor
    private let flaw: KeyedFlaw?
    private var medium = KeyedMedium(byteCountMax: 64 << 20)

    init(flaw: KeyedFlaw? = nil, isBlocking: Bool = false) {
        self.flaw = flaw
        let capabilities: Capabilities = [.keyed, .durableAtCommit, .deletesLast]
        descriptor = BackendDescriptor(
            name: "keyed", contract: .current, formats: 1...1,
            capabilities: isBlocking ? capabilities.union(.blocking) : capabilities, limits: KeyedSubject.limits,
            medium: .own, settings: [],
            open: { (_) throws(StorageError) -> any Backend in throw .unsupported("opened by its subject") })
    }

    func make() throws(StorageError) -> any Backend { open(byteCountMax: 64 << 20) }

    func makeSmall() throws(StorageError) -> (any Backend)? { open(byteCountMax: 1 << 20) }

    private func open(byteCountMax: Int) -> any Backend {
        medium = KeyedMedium(byteCountMax: byteCountMax)
        return KeyedBackend(medium, flaw)
    }

    func reopen(after ending: Ending) throws(StorageError) -> any Backend {
        switch ending {
        case .close: medium.end(seed: 0, isClean: true)
        case .crash(let seed): medium.end(seed: seed, isClean: false)
        }
        return KeyedBackend(medium, flaw)
    }

    func injectFault(after operations: Int) -> Bool {
        medium.state.withLock { $0.operationsToFault = operations }
        return true
    }

    func endFaults() -> Bool {
        medium.state.withLock { state in
            defer { state.operationsToFault = nil }
            return state.operationsToFault != nil
        }
    }
}
