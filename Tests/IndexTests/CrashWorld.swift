// An index over memory that crashes at any persist, and the processes that come after it. Each crash makes a world of its
// own: it attaches to what is left, must find what was acknowledged, goes on, and may crash in its turn.
import Base
import Index
import TestSupport
import Glibc

/// What all worlds of one history have in common.
final class CrashFindings {
    /// Crashes that were looked at: of the first process, and of those that came later.
    var crashCount = 0
    var laterCrashCount = 0
    var problems: [String] = []
    /// Regions of worlds that are gone: to get their pages anew takes longer than all the rest.
    private var spares: [SimulatedRegion] = []

    /// A region with what is left of `region`.
    func successor(of region: SimulatedRegion, isKill: Bool, seed: UInt64) -> (region: SimulatedRegion, image: [UInt8]) {
        let safe = region.needsPersist ? region.crashImage(seed: seed) : region.killImage()
        let shown = isKill ? region.killImage() : safe
        let spare = spares.firstIndex { $0.capacity == region.capacity }.map { spares.remove(at: $0) }
        let next = spare ?? SimulatedRegion(
            capacity: region.capacity, seed: seed, needsPersist: region.needsPersist)
        let backed = max(next.backedByteCount, safe.count)
        _ = next.grow(to: backed)
        memset(next.base + safe.count, 0, backed - safe.count)
        _ = safe.withUnsafeBytes { memcpy(next.base, $0.baseAddress!, $0.count) }
        next.persist(offset: 0, byteCount: backed)
        _ = shown.withUnsafeBytes { memcpy(next.base, $0.baseAddress!, $0.count) }
        return (next, shown)
    }

    func giveBack(_ region: SimulatedRegion) {
        (region.beforePersist, region.ignoredEvery) = (nil, 0)
        spares.append(region)
    }
}

struct CrashShape {
    var canary: IndexCanary?
    /// Every so many persists one does nothing.
    var ignoredEvery = 0
    /// Lines there is room for behind the first buckets.
    var linesMax = 8000
    var entriesMax = 2000
    /// Without, only kills between operations are looked at.
    var isPersistent = true
    /// One of so many persists is a crash; 1 for each. Then the same for processes that came after one.
    var crashEvery: UInt64 = 100
    var laterCrashEvery: UInt64 = 2000
    /// Crashes of one history, in a row.
    var depthMax = 2
    /// Of so many digests of a hundred the sort keys begin with the same bits; how many bits.
    var clusterPercent = 80
    var clusterBits: UInt64 = 4
    var recordsMax = 400
}

final class CrashWorld {
    static let partitions: [UInt16] = [1, 9]
    /// Roots and first buckets.
    private static let firstLinesSize = 4096 * (384 + 256)
    private let entries: SimulatedRegion
    private let lines: SimulatedRegion
    private(set) var index: PrimaryIndex!
    private let shape: CrashShape
    private let depth: Int
    let findings: CrashFindings
    private var random: SeededRandom
    private(set) var model: [Digest: Kept] = [:]
    private(set) var known: [Digest] = []
    /// What is being changed: before it ends both states are right.
    private var underWay: (digest: Digest, new: Kept?)?
    private var nextLocation: UInt64 = 1
    /// Whether the hooks look at crashes.
    var isWatched = true

    /// The first process.
    init(_ shape: CrashShape, seed: UInt64) throws {
        (self.shape, depth, findings) = (shape, 0, CrashFindings())
        random = SeededRandom(seed: seed)
        entries = SimulatedRegion(
            capacity: 64 + shape.entriesMax * 40, seed: seed, needsPersist: shape.isPersistent)
        lines = SimulatedRegion(
            capacity: 64 + CrashWorld.firstLinesSize + shape.linesMax * 64, seed: seed + 1, needsPersist: shape.isPersistent)
        index = try PrimaryIndex(entries: RegionArena(entries), lines: RegionArena(lines), canary: shape.canary)
        setHooks()
    }

    /// The process after a crash of `before`. Nil if it cannot go on; the findings say why.
    private init?(after before: CrashWorld, isKill: Bool, seed: UInt64) {
        (shape, depth, findings) = (before.shape, before.depth + 1, before.findings)
        random = SeededRandom(seed: seed)
        (model, known, underWay) = (before.model, before.known, before.underWay)
        nextLocation = before.nextLocation
        // What a killed process has stored is there, but the medium may not have it yet.
        let entriesLeft = findings.successor(of: before.entries, isKill: isKill, seed: seed)
        let linesLeft = findings.successor(of: before.lines, isKill: isKill, seed: seed)
        (entries, lines) = (entriesLeft.region, linesLeft.region)
        read(ImageReader(entries: entriesLeft.image, lines: linesLeft.image))
        setHooks()
        do {
            index = try PrimaryIndex(
                attachingTo: RegionArena(entries), lines: RegionArena(lines), canary: before.shape.canary)
        } catch {
            before.findings.problems.append("attaching: \(error)")
            return nil
        }
        guard adopt() else { return nil }
    }

    deinit {
        findings.giveBack(entries)
        findings.giveBack(lines)
    }

    private func setHooks() {
        for region in [entries, lines] {
            region.ignoredEvery = shape.ignoredEvery
            region.beforePersist = { [unowned self] in
                guard isWatched, findings.problems.isEmpty else { return }
                let chance = random.next()
                if chance & 15 == 0 { region.evict(percent: 30) }
                if (chance >> 8) % (depth == 0 ? shape.crashEvery : shape.laterCrashEvery) == 0 { crash() }
            }
        }
    }

    // ---- Operations ----

    func run(_ operations: Int) throws {
        for _ in 0..<operations where findings.problems.isEmpty {
            try step()
            if shape.isPersistent {
                if UInt8.random(in: 0..<20, using: &random) == 0 { lines.evict(percent: 30) }
            } else if UInt8.random(in: 0..<60, using: &random) == 0 {
                crash()
            }
        }
    }

    private func newDigest() -> Digest {
        let digest = Digest.random(&random, in: CrashWorld.partitions.randomElement(using: &random)!)
        guard Int.random(in: 0..<100, using: &random) < shape.clusterPercent else { return digest }
        return CrashWorld.digest(digest, startingWith: 0b10_1101, bits: shape.clusterBits)
    }

    /// A digest like `digest` whose sort key (high half of byte 1, then byte 2, ...) begins with the lower `bits` bits of
    /// `prefix`.
    static func digest(_ digest: Digest, startingWith prefix: UInt64, bits: UInt64) -> Digest {
        precondition(bits <= 12)
        let key = (digest.low >> 12 & 0xF) << 8 | digest.low >> 16 & 0xFF
        let mask: UInt64 = (1 << bits - 1) << (12 - bits)
        let changed = key & ~mask | prefix << (12 - bits) & mask
        let low = digest.low & ~0xFF_F000 | (changed >> 8) << 12 | (changed & 0xFF) << 16
        return Digest(low: low, middle: digest.middle, high: digest.high)
    }

    private func step() throws {
        let choice = Int.random(in: 0..<100, using: &random)
        if known.isEmpty || choice < 45 && known.count < shape.recordsMax { return try insert(newDigest()) }
        let digest = known.randomElement(using: &random)!
        switch choice {
        case ..<65: try remove(digest)
        case ..<85: try replace(digest)
        case ..<93: try relocate(digest)
        default: try setKind(digest, RecordKind(rawValue: UInt8(choice % 6))!)
        }
    }

    private func nextEntry(_ digest: Digest) -> (entry: IndexEntry, kept: Kept) {
        var entry = IndexEntry(digest: digest)
        entry.location = nextLocation
        nextLocation += 1
        return (entry, Kept(location: entry.location))
    }

    /// Does one operation; where memory is full nothing must have changed.
    private func change(_ digest: Digest, to new: Kept?, _ body: (PrimaryIndex) throws -> Void) throws {
        underWay = (digest, new)
        do { try body(index) } catch is IndexError { return underWay = nil }
        underWay = nil
        if new == nil { known.removeAll { $0 == digest } } else if model[digest] == nil { known.append(digest) }
        model[digest] = new
    }

    func insert(_ digest: Digest) throws {
        guard model[digest] == nil else { return }
        let next = nextEntry(digest)
        try change(digest, to: next.kept) { try $0.insert(digest, next.entry) }
    }

    private func reference(_ digest: Digest) -> IndexReference? {
        let reference = index.find(digest)
        if reference == nil { findings.problems.append("\(digest) is not in the index") }
        return reference
    }

    func replace(_ digest: Digest) throws {
        guard let reference = reference(digest) else { return }
        let next = nextEntry(digest)
        try change(digest, to: next.kept) { _ = try $0.replace(reference, with: next.entry, partition: digest.partition) }
    }

    func relocate(_ digest: Digest) throws {
        guard let reference = reference(digest), var kept = model[digest] else { return }
        kept.location = nextEntry(digest).kept.location
        try change(digest, to: kept) { $0.relocate(reference, to: kept.location) }
    }

    func setKind(_ digest: Digest, _ kind: RecordKind) throws {
        guard let reference = reference(digest), var kept = model[digest] else { return }
        kept.kind = kind.rawValue
        try change(digest, to: kept) { $0.setKind(reference, kind) }
    }

    func remove(_ digest: Digest) throws {
        guard let reference = reference(digest) else { return }
        try change(digest, to: nil) { $0.remove(reference, partition: digest.partition) }
    }

    // ---- Crashes ----

    /// Looks at what comes after a kill, and after a loss of power.
    func crash() {
        guard depth < shape.depthMax else { return }
        for isKill in shape.isPersistent ? [false, true] : [true] where findings.problems.isEmpty {
            if depth == 0 { findings.crashCount += 1 } else { findings.laterCrashCount += 1 }
            guard let next = CrashWorld(after: self, isKill: isKill, seed: random.next() >> 1) else { return }
            next.goOn()
        }
    }

    private func goOn() {
        let chance = random.next()
        guard chance % 4 == 0 else { return }
        do { try run(Int(chance >> 8) % 200) } catch { findings.problems.append("after a crash: \(error)") }
        if chance % 8 == 0 { crash() }
    }

    /// The image has every record where one who looks it up finds it.
    private func read(_ reader: ImageReader) {
        var found: [Digest: Kept] = [:]
        for partition in CrashWorld.partitions.map({ Int($0) }) {
            for bucket in 0..<reader.bucketCount(partition) {
                guard let records = reader.records(partition, bucket) else {
                    return findings.problems.append("bucket \(bucket) of partition \(partition) cannot be read")
                }
                // What a split left behind in the old bucket is not looked up there.
                for (digest, kept) in records where reader.bucket(digest) == bucket {
                    if let other = found[digest], other != kept { findings.problems.append("\(digest) is there twice") }
                    found[digest] = kept
                }
            }
        }
        compare(found, "read")
    }

    /// Walks all partitions and compares what is shown and what is found.
    private func adopt() -> Bool {
        var found: [Digest: Kept] = [:]
        do {
            for partition in 0..<UInt16(PartitionID.count) {
                _ = try index.adoptPartition(PartitionID(partition)) { record in
                    let kept = Kept(location: record.entry.location, kind: record.entry.kind.rawValue)
                    if found.updateValue(kept, forKey: record.digest) != nil {
                        findings.problems.append("\(record.digest) is shown twice")
                    }
                    return true
                }
            }
        } catch {
            findings.problems.append("walking: \(error)")
            return false
        }
        let memory = index.finishAdoption()
        compare(found, "walked")
        settle(found)
        let entryCount = (Int(entries.base.load(as: UInt64.self))) / 40
        if memory.freeEntryCount + found.count != entryCount {
            findings.problems.append("of \(entryCount) entries \(found.count) are records, \(memory.freeEntryCount) free")
        }
        if index.count != model.count { findings.problems.append("\(index.count) records are counted, not \(model.count)") }
        for (digest, kept) in model {
            guard let entry = index.find(digest).map({ index.entry($0) }), entry.location == kept.location else {
                findings.problems.append("\(digest) is not found after it was walked")
                break
            }
        }
        return findings.problems.isEmpty
    }

    /// What was under way has happened, or has not.
    private func settle(_ found: [Digest: Kept]) {
        guard let digest = underWay?.digest else { return }
        if found[digest] == nil { known.removeAll { $0 == digest } } else if model[digest] == nil { known.append(digest) }
        model[digest] = found[digest]
        underWay = nil
    }

    private func compare(_ found: [Digest: Kept], _ how: String) {
        for (digest, kept) in model where found[digest] != kept {
            if underWay?.digest == digest, found[digest] == underWay?.new { continue }
            findings.problems.append("\(how): \(digest) has \(found[digest].map { "\($0)" } ?? "nothing"), not \(kept)")
        }
        for (digest, kept) in found where model[digest] == nil {
            if underWay?.digest == digest, underWay?.new == kept { continue }
            findings.problems.append("\(how): \(digest) with \(kept) is there and should not be")
        }
    }
}
