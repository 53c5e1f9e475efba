// Random histories: operations over a few digests, drawn with weights that are drawn themselves, so that one history fills,
// another deletes, a third does little but crash. A history is an array of operations that make sense in any selection and
// order: that is what lets a failing one be shortened.
internal import Base
internal import Storage

/// One step of a history.
enum Operation {
    case append(Int, byteCount: Int, shard: Int)
    case read(Int, shard: Int)
    case delete(Int, shard: Int)
    case deleteNothing(Int, shard: Int)
    case commit(Int, shard: Int)
    case turn(shard: Int)
    case sleep(shard: Int)
    case settle
    case compact(shard: Int, byteBudget: Int)
    case scan(segments: Int)
    case storeBlob(byteCount: Int, salt: UInt64)
    case storePartitions(byteCount: Int, salt: UInt64)
    case loadMetadata
    case reopen(segments: Int)
    case prepareCrash(after: Int, seed: UInt64)
    case crash(seed: UInt64, segments: Int)

    /// The operation as a sentence of a report.
    var words: String {
        switch self {
        case .append(let number, let byteCount, let shard): "shard \(shard): append digest \(number), \(byteCount) bytes"
        case .read(let number, let shard): "shard \(shard): read digest \(number)"
        case .delete(let number, let shard): "shard \(shard): delete digest \(number)"
        case .deleteNothing(let number, let shard): "shard \(shard): remove digest \(number) whether there is one or not"
        case .commit(let number, let shard): "shard \(shard): commit digest \(number)"
        case .turn(let shard): "shard \(shard): end the turn, poll"
        case .sleep(let shard): "shard \(shard): end the turn sleeping, poll"
        case .settle: "end turns until all is answered"
        case .compact(let shard, let byteBudget): "shard \(shard): compact \(byteBudget) bytes"
        case .scan(let segments): "scan \(segments) segments and compare"
        case .storeBlob(let byteCount, _): "store a blob of \(byteCount) bytes"
        case .storePartitions(let byteCount, _): "store the partitions' metadata, \(byteCount) bytes each"
        case .loadMetadata: "load blob and metadata and compare"
        case .reopen(let segments): "close, open again, scan \(segments) segments"
        case .prepareCrash(let after, _): "let the next crash be one after \(after) more operations on the medium"
        case .crash(let seed, let segments): "crash (seed \(seed)), open again, scan \(segments) segments"
        }
    }
}

extension Session {
    /// Takes one step; what makes no sense now is left out.
    func perform(_ operation: Operation) throws(Failure) {
        switch operation {
        case .append(let number, let byteCount, let shard): try append(number, byteCount: byteCount, shard: shard)
        case .read(let number, let shard): try read(number, shard: shard)
        case .delete(let number, let shard): try delete(number, shard: shard)
        case .deleteNothing(let number, let shard): try deleteNothing(number, shard: shard)
        case .commit(let number, let shard): try commit(number, shard: shard)
        case .turn(let shard): try turn(shard)
        case .sleep(let shard): try turn(shard, sleeping: true)
        case .settle: try settle()
        case .compact(let shard, let byteBudget): try compact(shard: shard, byteBudget: byteBudget)
        case .scan(let segments): try scanAndCompare(segments: segments)
        case .storeBlob(let byteCount, let salt): try storeBlob(TestImage.content(salt, byteCount: byteCount))
        case .storePartitions(let byteCount, let salt):
            try storePartitions(Session.partitions(salt, byteCount: byteCount))
        case .loadMetadata: try checkMetadata()
        case .reopen(let segments): try closeAndReopen(segments: segments)
        case .prepareCrash(let after, let seed): if subject.prepareCrash(after: after, seed: seed) { isCrashPrepared = true }
        case .crash(let seed, let segments): try crash(seed: seed, segments: segments)
        }
    }

    /// Closes, opens again, and compares.
    func closeAndReopen(segments: Int, unwanted: Set<Int> = []) throws(Failure) {
        if let error = try close() {
            guard tolerates(error) else { throw Failure(text: "close failed: \(error)") }
            // What close could not write is lost like that of a crash.
            return try reopen(after: .crash(seed: 0), segments: segments)
        }
        try reopen(after: .close, segments: segments, unwanted: unwanted)
    }

    private func crash(seed: UInt64, segments: Int) throws(Failure) {
        if subject.crashesQuietly { try settle() }
        try reopen(after: .crash(seed: seed), segments: segments)
    }

    /// Metadata of all partitions, each of its own.
    static func partitions(_ salt: UInt64, byteCount: Int) -> [[UInt8]] {
        let common = TestImage.content(salt, byteCount: byteCount)
        return (0..<PartitionID.count).map { number in
            var bytes = common
            if bytes.count >= 2 {
                bytes[0] = UInt8(truncatingIfNeeded: number)
                bytes[1] = UInt8(truncatingIfNeeded: number >> 8)
            }
            return bytes
        }
    }
}

/// Draws operations.
struct HistoryPlan {
    /// What a history is about.
    enum Kind { case serving, crashing, metadata }

    private var random: SeededRandom
    private let kind: Kind
    private let digestCount: Int
    private let byteCountMax: Int
    private let imageSizeMax: Int
    private let weights: [Int]
    private let operationsPerCrash: Int
    private let promises: Capabilities

    init(seed: UInt64, kind: Kind, promises: Capabilities, limits: BackendLimits) {
        random = SeededRandom(seed: seed)
        self.kind = kind
        self.promises = promises
        digestCount = [1, 3, 8, 16, 24].randomElement(using: &random) ?? 8
        let sizes = kind == .crashing ? [96, 400, 1500, 4000] : [96, 400, 1500, 8000]
        imageSizeMax = limits.imageSizeMax
        byteCountMax = min(sizes.randomElement(using: &random) ?? 400, limits.imageSizeMax)
        operationsPerCrash = [6, 12, 25, 50].randomElement(using: &random) ?? 12
        weights = HistoryPlan.weights(kind, promises, &random)
    }

    /// One weight for each way that `draw` knows; each is drawn, and may be 0 where that makes sense.
    private static func weights(_ kind: Kind, _ promises: Capabilities, _ random: inout SeededRandom) -> [Int] {
        func some(_ choices: [Int]) -> Int { choices.randomElement(using: &random) ?? 0 }
        let isVolatile = promises.contains(.volatile)
        let metadata = kind == .metadata ? 10 : kind == .serving ? some([0, 0, 1]) : 0
        return [
            some([5, 10, 20]), some([1, 5, 15]), some([0, 2, 6]), promises.contains(.keyed) ? some([0, 1]) : 0,
            some([0, 3, 10]), some([2, 6, 12]), some([0, 1]), some([0, 1]), some([0, 1, 5]),
            kind == .serving ? some([0, 1]) : 0, metadata, kind == .metadata ? 2 : 0,
            isVolatile || kind == .metadata ? 0 : some([0, 0, 1]),
        ]
    }

    /// `count` operations, and what brings the history to a good end.
    mutating func draw(_ count: Int, crashes: Int) -> [Operation] {
        var operations: [Operation] = []
        var crashesLeft = crashes
        if crashes == 0 {
            for _ in 0..<count { operations += drawOne() }
        } else {
            while crashesLeft > 0 {
                for _ in 0..<Int.random(in: 1...operationsPerCrash, using: &random) { operations += drawOne() }
                operations += drawCrash()
                crashesLeft -= 1
            }
        }
        operations += [.scan(segments: [1, 4].randomElement(using: &random) ?? 1)]
        if !promises.contains(.volatile), crashes == 0 { operations += [.reopen(segments: 1)] }
        return operations
    }

    /// A crash; every third comes in the middle of a call.
    private mutating func drawCrash() -> [Operation] {
        let crash = Operation.crash(seed: random.next() >> 32, segments: [1, 1, 1, 4].randomElement(using: &random) ?? 1)
        guard Int.random(in: 0..<(kind == .metadata ? 2 : 3), using: &random) == 0 else { return [crash] }
        let after = Int.random(in: 0..<(kind == .metadata ? 3 : 8), using: &random)
        var operations: [Operation] = [.prepareCrash(after: after, seed: random.next() >> 32)]
        // Metadata is stored in few operations on the medium: the crash should be one of them.
        if kind == .metadata { operations.append(drawMetadata()) }
        for _ in 0..<Int.random(in: 1...4, using: &random) { operations += drawOne() }
        return operations + [crash]
    }

    private mutating func drawOne() -> [Operation] {
        let number = Int.random(in: 0..<digestCount, using: &random)
        let shard = Int.random(in: 0..<Session.shardCount, using: &random)
        switch drawWay() {
        case 0: return [.append(number, byteCount: drawByteCount(), shard: shard)] + drawCommit(number, shard)
        case 1: return [.read(number, shard: shard)]
        case 2: return [.delete(number, shard: shard)] + drawCommit(number, shard)
        case 3: return [.deleteNothing(number, shard: shard)]
        case 4: return [.commit(number, shard: shard)]
        case 5: return [.turn(shard: shard)]
        case 6: return [.sleep(shard: shard)]
        case 7: return [.settle]
        case 8: return [.compact(shard: shard, byteBudget: 1 << Int.random(in: 8...17, using: &random))]
        case 9: return [.scan(segments: [1, 4].randomElement(using: &random) ?? 1)]
        case 10: return [drawMetadata()]
        case 11: return [.loadMetadata]
        default: return [.reopen(segments: [1, 4].randomElement(using: &random) ?? 1)]
        }
    }

    /// Often what was just done is committed next, as a client that waits for it has it.
    private mutating func drawCommit(_ number: Int, _ shard: Int) -> [Operation] {
        guard weights[4] > 0, Int.random(in: 0..<4, using: &random) == 0 else { return [] }
        return [.settle, .commit(number, shard: shard), .settle]
    }

    private mutating func drawWay() -> Int {
        var left = Int.random(in: 0..<weights.reduce(0, +), using: &random)
        for (way, weight) in weights.enumerated() {
            left -= weight
            if left < 0 { return way }
        }
        return 0
    }

    private mutating func drawByteCount() -> Int {
        let isLong = kind == .serving && Int.random(in: 0..<50, using: &random) == 0
        let most = isLong ? min(64 << 10, imageSizeMax) : byteCountMax
        return Int.random(in: TestImage.byteCountMin...most, using: &random)
    }

    private mutating func drawMetadata() -> Operation {
        let salt = random.next() >> 32
        if Bool.random(using: &random) {
            return .storeBlob(byteCount: [0, 1, 100, 5000, 70_000, 1 << 20].randomElement(using: &random) ?? 1, salt: salt)
        }
        return .storePartitions(byteCount: [0, 8, 32, 256].randomElement(using: &random) ?? 8, salt: salt)
    }
}
