// Seeds: addresses to find others by. Each is looked up again at each try, and tried as long as nobody there is a neighbour.
internal import Base
internal import Fabric

extension Heartbeat {
    private static let seedsMax = 256
    private static let addressesMax = 32
    private static let answerMilliseconds: UInt64 = 10_000
    /// So often in a row the other end has closed the stream: that is no chance.
    private static let closedMax = 3
    /// So many seeds are named in one sentence.
    private static let namedMax = 4
    private var seedBackOff: BackOff { BackOff(leastMilliseconds: interval, mostMilliseconds: timeout) }

    /// Looks up what is due. Returns when the next is.
    mutating func driveSeeds() -> Instant {
        var next = Instant.never
        for index in seeds.indices {
            if let asked = seeds[index].asked {
                // An answer that does not come is one without addresses.
                let late = asked.advanced(byMilliseconds: Heartbeat.answerMilliseconds)
                if now < late {
                    next = min(next, late)
                    continue
                }
                seeds[index].asked = nil
            }
            if seeds[index].retryAt <= now {
                if isSatisfied(seeds[index]) {
                    seeds[index].isReached = true
                    seeds[index].attempts = 0
                    seeds[index].retryAt = now.advanced(byMilliseconds: timeout)
                } else {
                    seeds[index].asked = now
                    if seeds[index].firstAsked == nil { seeds[index].firstAsked = now }
                    out.append(.resolve(seeds[index].name))
                    next = min(next, now.advanced(byMilliseconds: Heartbeat.answerMilliseconds))
                    continue
                }
            }
            next = min(next, seeds[index].retryAt)
        }
        return next
    }

    private func isSatisfied(_ seed: Seed) -> Bool { !seed.addresses.isEmpty && seed.addresses.allSatisfy { isCovered($0) } }

    /// This node's, or a neighbour's.
    private func isCovered(_ address: Address) -> Bool {
        ownAddresses.contains(address) || peers.all.contains { $0.standing == .present && $0.isAt(address) }
    }

    mutating func resolved(_ name: SeedName, _ addresses: [Address]) {
        guard settings.mode == .mesh, let index = seeds.firstIndex(where: { $0.name == name && $0.asked != nil }) else {
            return
        }
        seeds[index].asked = nil
        seeds[index].addresses = Array(addresses.prefix(Heartbeat.addressesMax))
        seeds[index].retryAt = Instant(
            nanoseconds: now.nanoseconds &+ seedBackOff.delay(seeds[index].attempts, random: &random))
        seeds[index].attempts += 1
        dialAt = now
        if addresses.isEmpty { seedTrouble(index, "", "it resolves to no address") }
        for address in seeds[index].addresses {
            guard !isCovered(address), !seedStreams.contains(where: { $0.address == address }) else { continue }
            let stream = nextStream()
            seedStreams.append(SeedStream(stream: stream, seed: name, address: address, since: now))
            connect(stream, address)
        }
    }

    /// Says it once, until the seed has answered.
    private mutating func seedTrouble(_ index: Int, _ what: String, _ reason: String) {
        guard !seeds[index].isLogged else { return }
        seeds[index].isLogged = true
        seeds[index].trouble = reason
        log(.info, "seed \(seeds[index].name): \(what)\(reason). It is tried again, at the latest every \(timeout) ms")
    }

    /// Seeds that have led to nobody since the start, and where nobody is who has found this node; nil if there is none.
    var seedProblem: String? {
        let lost = seeds.filter { seed in
            // One that closes streams is named by itself.
            guard !seed.isReached, seed.closedAfterHello < Heartbeat.closedMax, let asked = seed.firstAsked else {
                return false
            }
            return now.nanoseconds(since: asked) >= 2 * timeoutNanoseconds && !isSatisfied(seed)
        }
        guard let first = lost.first else { return nil }
        let named = lost.prefix(Heartbeat.namedMax).map { "\($0.name)" + ($0.trouble.isEmpty ? "" : " (\($0.trouble))") }
        let more = lost.count > named.count ? " and \(lost.count - named.count) more" : ""
        return lost.count == 1
            ? "seed \(first.name) was not reached since the start" + (first.trouble.isEmpty ? "" : ": \(first.trouble)")
            : "seeds that were not reached since the start: \(named.joined(separator: ", "))\(more)"
    }

    mutating func seedFailed(_ one: SeedStream, _ reason: String) {
        guard let index = seeds.firstIndex(where: { $0.name == one.seed }) else { return }
        seedTrouble(index, "\(one.address) cannot be reached: ", reason)
        guard one.isStanding else { return }
        seeds[index].closedAfterHello += 1
        guard seeds[index].closedAfterHello >= Heartbeat.closedMax else { return }
        notice("seed \(one.seed)", "seed \(one.seed) closes every stream after the greeting: another cluster name, another"
            + " format, or no heartbeat port. The log of the node there says which")
    }

    /// It is known who is there.
    mutating func seedSucceeded(_ one: SeedStream) {
        guard let index = seeds.firstIndex(where: { $0.name == one.seed }) else { return }
        seeds[index].isReached = true
        seeds[index].isLogged = false
        seeds[index].closedAfterHello = 0
        seeds[index].attempts = 0
        notices.clear("seed \(one.seed)")
    }

    // ---- Operators ----

    mutating func tip(_ name: SeedName) -> String {
        guard settings.mode == .mesh else { return "ERROR:4:heartbeat mode is multicast: there are no seeds" }
        guard !name.host.isEmpty, name.port > 0 else { return "ERROR:4:host and port of a node are needed" }
        guard !seeds.contains(where: { $0.name == name }) else { return "ok" }
        guard seeds.count < Heartbeat.seedsMax else { return "ERROR:4:there are \(seeds.count) seeds already" }
        seeds.append(Seed(name: name, isTipped: true, retryAt: now))
        log(.info, "tip: \(name) is a seed from now on, until the next start")
        dialAt = now
        return "ok"
    }

    mutating func tipClear(_ names: [SeedName]) -> String {
        let cleared = seeds.filter { $0.isTipped && (names.isEmpty || names.contains($0.name)) }.map(\.name)
        seeds.removeAll { cleared.contains($0.name) }
        log(.info, cleared.isEmpty ? "tip-clear: no seed is taken back" : "tip-clear: no seeds any more: \(list(cleared))")
        for one in seedStreams where cleared.contains(one.seed) {
            out.append(.stream(.close(one.stream)))
            if one.isStanding {
                statistics.connections -= 1
                statistics.connectionsClosed += 1
            }
        }
        seedStreams.removeAll { cleared.contains($0.seed) }
        let configured = names.filter { name in seeds.contains { $0.name == name } }
        let unknown = names.filter { !cleared.contains($0) && !configured.contains($0) }
        guard !configured.isEmpty || !unknown.isEmpty else { return "ok" }
        var reasons: [String] = []
        if !unknown.isEmpty { reasons.append("not tipped: \(list(unknown))") }
        if !configured.isEmpty { reasons.append("seeds of the configuration stay: \(list(configured))") }
        return "ERROR:4:\(cleared.count) cleared, \(reasons.joined(separator: ", "))"
    }

    private func list(_ names: [SeedName]) -> String { names.map(\.description).joined(separator: " ") }
}
