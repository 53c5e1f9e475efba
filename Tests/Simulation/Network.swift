// The network between the simulated nodes: which ways are open, how long a message takes. Invariants:
// 1. A way is one direction between two nodes; the two directions of a link may differ.
// 2. Cutting a way stops what is under way on it; it goes on after the cut is mended, if the streams still stand.

struct Network {
    private let count: Int
    private var isCut: [Bool]
    /// Nodes to whose fabric port nobody gets through.
    private var isFabricShut: [Bool]
    /// Until when each way is clogged, virtual nanoseconds.
    private var clogEnds: [UInt64]
    private var namesFailUntil: UInt64 = 0
    var options: RunOptions
    var chance: Chance

    init(count: Int, options: RunOptions, seed: UInt64) {
        self.count = count
        self.options = options
        isCut = Array(repeating: false, count: count * count)
        isFabricShut = Array(repeating: false, count: count)
        clogEnds = Array(repeating: 0, count: count * count)
        chance = Chance(seed: seed, "network")
    }

    func isOpen(_ from: Int, _ to: Int) -> Bool { !isCut[from * count + to] }

    /// When a message that leaves at `now` arrives.
    mutating func arrival(_ from: Int, _ to: Int, now: UInt64) -> UInt64 {
        let base = from == to ? 20_000 : UInt64(options.delayMicroseconds) * 1000
        var time = now + base + chance.below(base)
        if chance.permille(options.tailPermille) { time += chance.below(UInt64(options.tailMicroseconds) * 1000) }
        let clogEnd = clogEnds[from * count + to]
        return clogEnd > now ? max(time, clogEnd + chance.below(1_000_000)) : time
    }

    mutating func cut(_ from: Int, _ to: Int) {
        if from != to { isCut[from * count + to] = true }
    }

    /// Cuts both ways between nodes of which `isApart` says that they are on different sides.
    mutating func cut(where isApart: (Int, Int) -> Bool) {
        for from in 0..<count {
            for to in 0..<count where from != to && isApart(from, to) { cut(from, to) }
        }
    }

    func takesStreams(_ node: Int, _ channel: Channel) -> Bool { channel == .heartbeat || !isFabricShut[node] }

    mutating func shutFabric(_ node: Int) { isFabricShut[node] = true }

    mutating func heal() {
        for place in isCut.indices { isCut[place] = false }
        for place in isFabricShut.indices { isFabricShut[place] = false }
    }

    /// All ways are open, quick and certain: what a cluster may ask for when it is to come together.
    mutating func calm(now: UInt64) {
        heal()
        for place in clogEnds.indices { clogEnds[place] = min(clogEnds[place], now) }
        namesFailUntil = min(namesFailUntil, now)
        options.tailPermille = 0
        options.refusalPermille = 0
        options.nameFailPermille = 0
        options.lossPermille = min(options.lossPermille, 5)
    }

    mutating func clog(_ from: Int, _ to: Int, until time: UInt64) {
        clogEnds[from * count + to] = max(clogEnds[from * count + to], time)
    }

    mutating func failNames(until time: UInt64) { namesFailUntil = max(namesFailUntil, time) }

    /// Whether a look-up at `now` finds nothing.
    mutating func nameFails(now: UInt64) -> Bool { now < namesFailUntil || chance.permille(options.nameFailPermille) }
}
