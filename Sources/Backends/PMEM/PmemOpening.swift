// Opens the files of a namespace: looks at all, says everything that is wrong, and stores something only then. Invariants:
// 1. What was found is persisted before anything is built on it: a process that died may have left stores that can be read
//    and do not last.
// 2. The floor of the orders and the session key last, on every file, before any image is appended.
// 3. A set is made, and grows, when the first superblock that counts the new slots lasts: until then new files are joining
//    ones, which the next opening takes for blank.
internal import Base
internal import BlockStore
internal import Storage

/// See the top of the file. One opening.
struct PmemOpening {
    let request: OpenRequest
    let settings: PmemSettings
    private let entropy: @Sendable () -> UInt64
    private let survey: PmemSurvey

    init(
        _ request: OpenRequest, opener: any PmemOpener, entropy: @escaping @Sendable () -> UInt64, shape: PmemShape
    ) {
        self.request = request
        self.entropy = entropy
        settings = PmemSettings(request.settings, shape: shape)
        survey = PmemSurvey(settings: settings, opener: opener)
    }

    /// - Throws: `settings`, `medium`, `device`.
    func open() throws(StorageError) -> PmemBackend {
        try checkSettings()
        _ = try PmemPlan(survey.look(isLookedAt: true), request, settings)
        let plan = try PmemPlan(survey.look(isLookedAt: false), request, settings)
        for one in plan.members { one.file?.region.persist(offset: 0, byteCount: PmemSuperblock.valuesOffset) }
        return try make(plan)
    }

    /// What can be told without touching anything.
    var problems: [String] {
        do throws(StorageError) {
            try checkSettings()
            _ = try PmemPlan(survey.look(isLookedAt: true), request, settings)
            return []
        } catch {
            return [error.text]
        }
    }

    private func checkSettings() throws(StorageError) {
        let paths = settings.files
        var problems: [String] = []
        if paths.isEmpty { problems.append("storage-engine pmem needs `file` settings: paths in persistent memory") }
        if paths.count > BlockSpace.slotsMax { problems.append("\(paths.count) files are more than \(BlockSpace.slotsMax)") }
        for (number, path) in paths.enumerated() where paths[..<number].contains(path) {
            problems.append("\(path) is named twice")
        }
        if !PmemSuperblock.holds(identity(session: 0)) { problems.append("the name of the namespace is too long") }
        guard problems.isEmpty else { throw .settings(problems.joined(separator: "; ")) }
    }

    private func identity(session: UInt64) -> MediumIdentity {
        MediumIdentity(
            namespace: request.namespace, agreement: request.agreement, session: session
        ).with(format: PmemSuperblock.format)
    }

    // ---- Kept memory ----

    /// Why the namespace's memory cannot be gone on from; nil if it can.
    private func coldReason(_ plan: PmemPlan, _ memory: any KeptMemory) -> String? {
        let keys = memory.sessionKeys
        if keys.isEmpty { return "its memory holds no index to go on from" }
        if settings.startsEmpty { return "cold-start-empty is set" }
        if plan.members.isEmpty { return "the set of files is new" }
        if let one = plan.added.first { return "\(one.path) is new in the set" }
        let stranger = plan.members.first { !keys.contains($0.superblock?.sessionKey ?? 0) }
        return stranger.map { "\($0.path) was used without this memory since" }
    }

    /// A key of chance; never 0.
    private func newKey() -> UInt64 {
        var random = SeededRandom(seed: entropy())
        return random.next() | 1
    }

    // ---- The set ----

    /// The superblock of this session, but for what is each file's own.
    private func superblock(_ plan: PmemPlan, key: UInt64) -> PmemSuperblock {
        let known = plan.members.compactMap(\.superblock)
        let next = max(1, known.map(\.orderFloor).max() ?? 1)
        let first = settings.startsEmpty ? next : known.map(\.firstOrder).max() ?? next
        return PmemSuperblock(
            setIdentity: known.first?.setIdentity ?? newSetIdentity(),
            identity: identity(session: (known.map(\.identity.session).max() ?? 0) + 1), shape: settings.shape,
            version: known.map(\.version).max() ?? 0, orderFloor: next + ImageOrders.step, firstOrder: first,
            sessionKey: key)
    }

    /// Two sets never have the same but by an accident of 1 in 2^64.
    private func newSetIdentity() -> UInt64 {
        var random = SeededRandom(seed: entropy())
        var seed = random.next()
        for text in [request.namespace] + settings.files { seed = fnv1a(text.utf8, from: seed) }
        random = SeededRandom(seed: seed)
        return random.next()
    }

    private func make(_ plan: PmemPlan) throws(StorageError) -> PmemBackend {
        let reason = request.memory.flatMap { coldReason(plan, $0) }
        let isWarm = request.memory != nil && reason == nil
        let key = request.memory == nil ? 0 : newKey()
        if let reason { try request.memory?.startCold(because: reason) }
        try request.memory?.beginSession(key)
        let common = superblock(plan, key: key)
        let controls = claim(plan, common)
        try request.memory?.sessionBegan()
        tell(plan)
        return try PmemBackend(
            controls, common, settings, paths: settings.files,
            start: isWarm ? .warm(isWalked: request.memory?.wasClosed != true)
                : plan.members.isEmpty || settings.startsEmpty ? .empty : .cold, request)
    }

    /// Stores the superblocks of this session.
    private func claim(_ plan: PmemPlan, _ common: PmemSuperblock) -> [PmemControl] {
        let slotCount = plan.slotCount + plan.added.count
        func control(_ one: FoundFile, slot: Int) -> PmemControl? {
            guard let file = one.file else { return nil }
            var superblock = common
            superblock.slot = slot
            superblock.slotCount = slotCount
            superblock.fileByteCount = one.byteCount
            return PmemControl(path: one.path, file, superblock, copy: one.copy)
        }
        let members = plan.members.compactMap { control($0, slot: $0.superblock!.slot) }
        let added = plan.added.enumerated().compactMap { control($1, slot: plan.slotCount + $0) }
        for one in added { one.rewrite { $0.isJoining = true } }
        for one in members + added { one.rewrite { $0.isJoining = false } }
        return members + added
    }

    /// Says in the log what is not as it was.
    private func tell(_ plan: PmemPlan) {
        for one in plan.members + plan.added {
            if let note = one.file?.note { request.warn("\(one.path): \(note)") }
        }
        let paths = plan.added.map(\.path).joined(separator: ", ")
        if plan.members.isEmpty {
            request.log("namespace \(request.namespace): a new set of \(plan.added.count) files of persistent memory was"
                + " made: \(paths)")
        } else if !plan.added.isEmpty {
            request.log("namespace \(request.namespace): the set has grown from \(plan.slotCount) to"
                + " \(plan.slotCount + plan.added.count) files by \(paths)")
        }
        if settings.startsEmpty, !plan.members.isEmpty {
            request.warn("namespace \(request.namespace): COLD-START-EMPTY: all records in its files are forgotten for ever;"
                + " take cold-start-empty out of the configuration now")
        }
    }
}
