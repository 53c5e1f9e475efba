// One history: clients work on a node, power fails again and again, and what the next start finds is looked at.
import Base
import Device
import DeviceLog
import Engine
import Glibc
import Index
import Storage
import Wire

/// What a run has come to.
struct CrashFigures {
    var histories = 0
    /// Power failures after which everything was found to be right.
    var crashes = 0
    var crashesOfStarts = 0
    var kills = 0
    var closes = 0
    var probes = 0
    var quietPoints = 0
    var requests = 0
    var movedImages: UInt64 = 0
    var refusals = 0
    var tombstones = 0

    mutating func add(_ other: CrashFigures) {
        histories += other.histories
        crashes += other.crashes
        crashesOfStarts += other.crashesOfStarts
        kills += other.kills
        closes += other.closes
        probes += other.probes
        quietPoints += other.quietPoints
        requests += other.requests
        movedImages += other.movedImages
        refusals += other.refusals
        tombstones += other.tombstones
    }

    /// For people.
    var text: String {
        "\(histories) histories, \(crashes) crashes (\(crashesOfStarts) during a start, \(kills) of the process only),"
            + " \(closes) closes, \(quietPoints) quiet points, \(probes) probes for room, \(requests) requests"
            + " (\(refusals) refused for space or time), \(movedImages) images moved, \(tombstones) tombstones found"
    }
}

/// See the top of the file. One thread.
final class CrashHistory {
    private static let connectionCount: UInt64 = 24
    /// Connections of the reads after a start.
    private static let firstCheck: UInt64 = 1000
    private static let settleStepsMax = 4000
    private static let probesMax = 30
    private static let flushesMin = 8
    let plan: CrashPlan
    let model: CrashModel
    private(set) var figures = CrashFigures()
    private var random: SeededRandom
    private let clock = SharedClock()
    private var medium: CrashMedium
    private var node: CrashNode!
    private var maker: RequestMaker
    private var underWay: [(request: ClientRequest, since: Int)?] = Array(repeating: nil, count: Int(connectionCount))
    private var checks: [ClientAnswer?] = []
    private var lastResult = ResultCode.ok

    init(_ plan: CrashPlan) {
        self.plan = plan
        var random = SeededRandom(seed: plan.seed ^ 0x5EED)
        let partitions = (0..<6).map { _ in UInt16.random(in: 0..<4096, using: &random) }
        let digests = (0..<plan.recordCount).map { number in
            let low = random.next() & ~0xFFF | UInt64(partitions[number % partitions.count])
            return Digest(low: low, middle: random.next(), high: UInt32(truncatingIfNeeded: random.next()))
        }
        model = CrashModel(digests: digests, commits: plan.commits)
        maker = RequestMaker(plan, seed: random.next())
        medium = CrashMedium(
            (0..<plan.deviceCount).map { _ in
                var settings = SimulatedDeviceSettings(geometry: plan.geometry, seed: random.next())
                settings.latencyTicksMax = plan.latencyTicksMax
                return SimulatedDevice(settings)
            }, canary: plan.canary)
        self.random = random
    }

    /// - Throws: `CrashFailure`.
    func run() throws {
        figures.histories = 1
        try start()
        for _ in 0..<plan.crashes {
            try workUntilTheEnd()
            try start()
        }
    }

    private func check() throws { if let failure = model.failure { throw failure } }

    private func chance(_ part: Int, of whole: Int) -> Bool { Int.random(in: 0..<whole, using: &random) < part }

    // ---- Starts ----

    /// Starts on the medium until no power failure comes in between.
    private func start() throws {
        while true {
            let current = medium
            model.isDead = { current.isDead }
            if chance(1, of: 8) {
                current.prepareCrash(after: Int.random(in: 0..<100, using: &random), seed: random.next())
            }
            do {
                node = try CrashNode(plan, current, clock, model, &random) { [unowned self] in receive($0, $1) }
            } catch let error as StorageError {
                throw CrashFailure(words: "a start fails: \(error.text)")
            }
            try check()
            let found = try lookAtAll()
            guard current.isDead else {
                current.cancelCrash()
                for (key, record) in found.enumerated() {
                    model.started(key, record.kind, record.content, record.generation, held: record.held)
                    if record.kind == .tombstone { figures.tombstones += 1 }
                }
                try check()
                return try checkFigures()
            }
            figures.crashes += 1
            figures.crashesOfStarts += 1
            node = nil
            medium = current.afterCrash()
        }
    }

    private struct Found {
        var kind = RecordState.Kind.nothing
        var content = Content()
        var generation: UInt16 = 0
        var held: UInt64?
    }

    /// Everything that the start has found, read as clients would.
    private func lookAtAll() throws -> [Found] {
        checks = Array(repeating: nil, count: model.digests.count)
        let entries = model.digests.map { node.entry($0) }
        for key in model.digests.indices {
            node.send(
                ClientRequest(kind: .get, key: key), model.digests[key], connection: CrashHistory.firstCheck + UInt64(key))
        }
        for _ in 0..<CrashHistory.settleStepsMax where checks.contains(where: { $0 == nil }) {
            try turn(requests: 0, slices: false)
        }
        guard node.namespace.total(.recordsUnreadable) == 0 else { throw CrashFailure(words: "records cannot be read") }
        return try zip(entries, checks).map { entry, answer in
            guard let answer else { throw CrashFailure(words: "a read after a start is never answered") }
            guard let entry else {
                guard answer.result == .notFound else { throw CrashFailure(words: "a record without an entry is there") }
                return Found()
            }
            let wanted: ResultCode = entry.kind == .live ? .ok : .notFound
            guard answer.result == wanted else {
                throw CrashFailure(words: "a read after a start is answered \(answer.result.rawValue)")
            }
            return Found(
                kind: entry.kind == .live ? .live : .tombstone, content: answer.content, generation: entry.generation,
                held: entry.location)
        }
    }

    /// Counters against a walk; nothing is under way.
    private func checkFigures() throws {
        let entries = model.digests.compactMap { node.entry($0) }
        let live = entries.count { $0.kind == .live }
        let bytes = entries.reduce(0) { $0 + UInt64($1.byteCount) }
        let namespace = node.namespace
        func compare(_ name: String, _ is: UInt64, _ should: UInt64) throws {
            if `is` != should { throw CrashFailure(words: "\(name) is \(`is`), a walk finds \(should)") }
        }
        try compare("index count", UInt64(namespace.index.count), UInt64(entries.count))
        try compare("objects", UInt64(namespace.objectCount), UInt64(live))
        try compare("tombstones", UInt64(namespace.tombstoneCount), UInt64(entries.count - live))
        try compare("indexed bytes", namespace.indexedBytes, bytes)
        try compare("used bytes of the backend", node.backend.statistics.usedBytes, bytes)
        try compare("unreadable records", namespace.total(.recordsUnreadable), 0)
    }

    // ---- Work ----

    private func workUntilTheEnd() throws {
        let steps = Int.random(in: 2...40, using: &random)
        // 0 to 4: power fails at some operation; 5, 6: between turns; 7: the process dies; 8, 9: a close.
        let ending = Int.random(in: 0..<10, using: &random)
        if ending < 5 {
            medium.prepareCrash(after: Int.random(in: 0..<(4 * steps), using: &random), seed: random.next())
        }
        for _ in 0..<steps where !medium.isDead {
            try turn(requests: plan.requestsPerStep, slices: true)
            if chance(1, of: 30) { try quietPoint() }
        }
        if ending >= 8, !medium.isDead { try close() }
        figures.movedImages += node.backend.statistics.movedImages
        if ending >= 8, !medium.isDead, chance(1, of: 2) {
            end()
            medium = medium.reused()
            return
        }
        if ending == 7 {
            medium.kill()
            figures.kills += 1
        } else {
            medium.crash(seed: random.next())
        }
        figures.crashes += 1
        end()
        medium = medium.afterCrash()
    }

    private func end() {
        node = nil
        for place in underWay.indices { underWay[place] = nil }
    }

    private func close() throws {
        if chance(2, of: 3) { try settle() }
        try node.backend.close()
        if !medium.isDead { model.everythingLasts() }
        figures.closes += 1
    }

    /// Everything is answered and written: what was written lasts, unless nobody has asked the devices for a flush.
    private func quietPoint() throws {
        try settle()
        guard !medium.isDead else { return }
        try checkFigures()
        figures.quietPoints += 1
        if !plan.isSyncDisabled { model.everythingLasts() }
        // In soak tests only: a crash while defragmentation is down to the last block may still leave a log that only
        // growth helps.
        if getenv("APUS_SOAK") != nil, plan.deviceCount == 1, chance(1, of: 3) { try probe() }
    }

    /// If some blocks must be less live than defragmentation asks for, and by far, a small record finds room in the end.
    /// Unless a block has room for a few flushes only: then what is moved takes as much as it wins.
    private func probe() throws {
        guard plan.shape.blockSize >= CrashHistory.flushesMin * plan.shape.flushUnit else { return }
        // Blocks that are held back for moved images, or open, or on their way: five of them win nothing.
        let room = (plan.blockCount - 5) * plan.shape.blockSize * plan.defragLivePercent / 100
        guard node.backend.statistics.usedBytes < room / 2 else { return }
        figures.probes += 1
        for _ in 0..<CrashHistory.probesMax {
            send(maker.small(key: Int.random(in: model.digests.indices, using: &random)), 0)
            try settle()
            guard !medium.isDead, lastResult != .ok else { return }
            for _ in 0..<20 { try turn(requests: 0, slices: true) }
        }
        throw CrashFailure(words: "no room for a small record: \(node.backend.statistics.usedBytes) bytes are used of"
            + " \(plan.blockCount) blocks; answered \(lastResult.rawValue); "
            + node.backend.statistics.details.map { "\($0.name)=\($0.value)" }.joined(separator: " "))
    }

    private func settle() throws {
        var quietSteps = 0
        for _ in 0..<CrashHistory.settleStepsMax {
            clock.advance(UInt64.random(in: 0...(plan.flushMaxMilliseconds + 10), using: &random))
            try turn(requests: 0, slices: chance(1, of: 4))
            quietSteps = node.isQuiet && underWay.allSatisfy { $0 == nil } ? quietSteps + 1 : 0
            if quietSteps == 2 { return }
        }
        throw CrashFailure(words: "requests or writes are still under way after \(CrashHistory.settleStepsMax) turns:"
            + " \(underWay.compactMap { $0?.request.text }), devices idle \(medium.isIdle)")
    }

    /// A turn of each reactor that has a reason for one.
    private func turn(requests: Int, slices: Bool) throws {
        clock.advance([0, 1, 1, 2, 7].randomElement(using: &random)!)
        for reactor in node.reactors.shuffled(using: &random) { node.beginTurn(reactor, byChance: chance(1, of: 8)) }
        if requests > 0 { for _ in 0..<Int.random(in: 0...requests, using: &random) { sendOne() } }
        for reactor in node.reactors where reactor.isInTurn && slices {
            while chance(1, of: 2) { _ = node.shards[reactor.number].backgroundSlice() }
        }
        for reactor in node.reactors.shuffled(using: &random) { node.endTurn(reactor, sleeping: chance(1, of: 2)) }
        if chance(1, of: 2) { medium.advance() }
        try check()
    }

    private func sendOne() {
        guard !medium.isDead else { return }
        let place = Int.random(in: underWay.indices, using: &random)
        guard underWay[place] == nil else { return }
        send(maker.next(model, &random), place)
    }

    private func send(_ request: ClientRequest, _ place: Int) {
        underWay[place] = (request, model.tick())
        model.sent(request)
        figures.requests += 1
        node.send(request, model.digests[request.key], connection: UInt64(place))
    }

    private func receive(_ connection: UInt64, _ answer: ClientAnswer) {
        guard connection < CrashHistory.firstCheck else {
            return checks[Int(connection - CrashHistory.firstCheck)] = answer
        }
        guard let (request, since) = underWay[Int(connection)] else {
            return model.fail(nil, "an answer that nobody has asked for")
        }
        underWay[Int(connection)] = nil
        lastResult = answer.result
        let refusals: [ResultCode] = [.outOfSpace, .deviceOverload, .timeout, .keyBusy]
        if refusals.contains(answer.result) { figures.refusals += 1 }
        model.answered(request, answer, since: since)
    }
}
