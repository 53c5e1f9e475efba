// Rules about what disks keep of partitions (P7). In this part of the product no record moves: a copy never gets what it
// lacks. So whatever a version says from one store to the next follows from the course of views alone.
internal import Assembly
internal import Base
internal import Fabric
internal import Partitions

/// The partitions that are looked at where all would take too long.
enum StoredSample {
    static let partitions = Array(stride(from: 5, to: PartitionID.count, by: 61))

    /// Nil if it cannot be read.
    static func record(_ stored: [[UInt8]]?, _ partition: Int, _ namespace: String) -> PartitionRecord? {
        guard let stored, !stored.isEmpty else { return PartitionRecord() }
        return try? PartitionRecord(stored[partition], namespace: namespace, partition: partition)
    }
}

/// What a disk has taken of the partitions of one namespace.
struct PartitionsChange {
    let namespace: String
    /// Empty if there was nothing.
    let before: [[UInt8]]
    let after: [[UInt8]]
}

/// From one record to the next on one disk: nobody drops a copy, memory never goes back, a version advances along its line,
/// and what a full copy held it goes on to say that it holds, or that it has to be merged.
///
/// A node goes on from what it had before if a view is given up whose records it has stored: it has not said that it is
/// prepared, so nobody can have opened that view. All states since it opened a view, or started, are as good.
struct AdvanceChecker {
    private struct State {
        let metadata: [[UInt8]]
        /// The process that goes on from it has stored it itself.
        let isOwn: Bool
    }
    private struct Course {
        let node: Int
        let namespace: String
        /// The process that stored last.
        var run: Int
        /// What its disk held before, since its process opened a view or started.
        var earlier: [State]
    }
    private var courses: [Course] = []

    /// Records of one partition, told apart by where they stand in memory: nodes share the bytes of equal ones, and steps
    /// that are good come again for many partitions.
    private typealias Step = [UInt]

    /// The node opens a view: what it has stored for that counts.
    mutating func opened(_ node: Int) {
        for place in courses.indices where courses[place].node == node { courses[place].earlier = [] }
    }

    mutating func stored(_ node: SimulatedNode, _ change: PartitionsChange) -> Violation? {
        let states = states(node, change)
        guard change.after.count == PartitionID.count else {
            return Violation("P7", "\(node.name) stores \(change.after.count) partitions of \(change.namespace)")
        }
        var good: Set<Step> = []
        for partition in 0..<PartitionID.count {
            let step = states.map { AdvanceChecker.place($0.metadata, partition) }
                + [AdvanceChecker.place(change.after, partition)]
            guard good.insert(step).inserted, let wrong = wrong(change, states, partition) else { continue }
            return Violation("P7", "\(node.name), partition \(partition) of \(change.namespace): \(wrong)")
        }
        return nil
    }

    /// Means something only while the metadata is there.
    private static func place(_ metadata: [[UInt8]], _ partition: Int) -> UInt {
        metadata.isEmpty ? 0 : metadata[partition].withUnsafeBufferPointer { UInt(bitPattern: $0.baseAddress) }
    }

    /// From which states it may go on.
    private mutating func states(_ node: SimulatedNode, _ change: PartitionsChange) -> [State] {
        let known = courses.firstIndex { $0.node == node.number && $0.namespace == change.namespace }
        guard let known, courses[known].run == node.run else {
            if let known { courses.remove(at: known) }
            let first = State(metadata: change.before, isOwn: false)
            courses.append(Course(node: node.number, namespace: change.namespace, run: node.run, earlier: [first]))
            return [first]
        }
        courses[known].earlier.append(State(metadata: change.before, isOwn: true))
        return courses[known].earlier
    }

    private func wrong(_ change: PartitionsChange, _ states: [State], _ partition: Int) -> String? {
        guard let after = StoredSample.record(change.after, partition, change.namespace) else {
            return "what is stored cannot be read"
        }
        var sentence: String?
        for state in states {
            guard let before = StoredSample.record(state.metadata, partition, change.namespace) else {
                return "what was stored cannot be read"
            }
            guard let wrong = AdvanceChecker.wrong(before, after, isSameRun: state.isOwn) else { return nil }
            sentence = wrong + "; it was \(AdvanceChecker.words(before)), it is \(AdvanceChecker.words(after))"
        }
        return sentence
    }

    private static func words(_ record: PartitionRecord) -> String {
        "\(record.version.map { "\($0)" } ?? "no copy")\(record.isOpen ? ", open" : "")"
            + ", remembers \(record.remembered.words)"
    }

    /// What is wrong with a record after another one; nil: nothing. `isSameRun`: one process has stored both.
    static func wrong(_ before: PartitionRecord, _ after: PartitionRecord, isSameRun: Bool) -> String? {
        guard after.remembered.rawValue >= before.remembered.rawValue else { return "the memory of epochs goes back" }
        guard after.highWaterMark >= before.highWaterMark else { return "the high-water mark goes back" }
        guard let old = before.version else { return nil }
        guard let new = after.version else { return "a copy is dropped" }
        guard new.epoch == old.epoch || new.epoch.regime > old.epoch.regime else { return "the epoch goes back" }
        // What its process found open it took for torn.
        let held = before.isOpen && !isSameRun ? old.torn : old
        return new.isFull ? wrongFull(held, new) : wrongSubset(held, new)
    }

    private static func wrongFull(_ old: PartitionVersion, _ new: PartitionVersion) -> String? {
        guard old.isFull else { return "a subset says that it is full" }
        guard isOfLine(old, new) else { return "a full copy of one line is replaced by one of another" }
        return old.isTorn == new.isTorn ? nil : old.isTorn ? "a torn copy is sound" : "a sound copy is torn"
    }

    private static func wrongSubset(_ old: PartitionVersion, _ new: PartitionVersion) -> String? {
        if new.isMixed { return old.isMixed || !new.covers(old) ? nil : "a copy of its line has to be merged" }
        if old.isMixed { return "what had to be merged need not be" }
        guard isOfLine(old, new) else { return "a copy of another line is replaced, and need not be merged" }
        if new.subsetSince == old.subsetSince {
            return new.isTorn == old.isTorn ? nil : "a copy is \(new.isTorn ? "torn" : "sound") of itself"
        }
        guard new.subsetSince == new.epoch else { return "a subset holds more than before" }
        guard old.isSound else { return new.base == nil ? nil : "a torn copy is the base of another" }
        let base = old.isFull ? old.epoch : old.base
        guard new.base == base || new.base == nil && !(base.map { new.ancestors.contains($0) } ?? false) else {
            return "the base of the copy is not what it held"
        }
        return nil
    }

    /// Of one line, as far as its ancestors are kept.
    private static func isOfLine(_ old: PartitionVersion, _ new: PartitionVersion) -> Bool {
        new.covers(old) || new.ancestors.count == PartitionVersion.ancestorsMax
            && new.ancestors.last!.regime > old.epoch.regime
    }
}

/// What a version says that a copy holds, it holds. Each partition of the sample gets a write whenever all of its copies are
/// open in one view; a copy has the writes of an epoch if it was there for all of them, and has not been killed since.
struct HoldingChecker {
    private struct Writes {
        let epoch: Epoch
        /// Nodes that have all of them, a bit each.
        var holders: UInt64
        /// Nodes that lose the last ones if they are killed.
        var unsafe: UInt64
    }
    private struct Space {
        let name: String
        /// By partition of the sample: rising.
        var writes: [[Writes]]
    }
    private var spaces: [Space] = []

    /// A node has published this.
    mutating func published(_ node: SimulatedNode, _ snapshot: Publication, _ world: World) {
        guard snapshot.phase == .open, let view = snapshot.view, world.nodes.count <= 64 else { return }
        for map in snapshot.maps where map.nodes.contains(node.id) {
            // Bits of the world's numbers, by place in the map.
            let bits: [UInt64] = map.nodes.map { id in
                world.nodes.first { $0.id == id }.map { HoldingChecker.bit($0.number) } ?? 0
            }
            let isOpen = map.nodes.map { id in
                id == node.id || world.nodes.contains { $0.id == id && $0.phase == .open && $0.latest?.view == view }
            }
            write(place(map.name), map, bits, isOpen)
        }
    }

    private mutating func write(_ space: Int, _ map: NamespaceMap, _ bits: [UInt64], _ isOpen: [Bool]) {
        for (place, partition) in StoredSample.partitions.enumerated() {
            guard map.actingMasters[partition] != NamespaceMap.nobody else { continue }
            let copies = [Int(map.actingMasters[partition])] + (0..<map.copies).map {
                Int(map.replicas[$0 * PartitionID.count + partition])
            }
            guard copies.allSatisfy({ isOpen[$0] }) else { continue }
            let mask = copies.reduce(0) { $0 | bits[$1] }
            let epoch = map.epochs[partition]
            if let known = spaces[space].writes[place].firstIndex(where: { $0.epoch == epoch }) {
                spaces[space].writes[place][known].holders &= mask
                spaces[space].writes[place][known].unsafe |= mask
            } else {
                spaces[space].writes[place].append(Writes(epoch: epoch, holders: mask, unsafe: mask))
            }
        }
    }

    private mutating func place(_ name: String) -> Int {
        if let known = spaces.firstIndex(where: { $0.name == name }) { return known }
        spaces.append(Space(name: name, writes: StoredSample.partitions.map { _ in [] }))
        return spaces.count - 1
    }

    private mutating func change(_ body: (inout Writes) -> Void) {
        for space in spaces.indices {
            for place in spaces[space].writes.indices {
                for one in spaces[space].writes[place].indices { body(&spaces[space].writes[place][one]) }
            }
        }
    }

    /// The process is gone: what it took last may be.
    mutating func killed(_ node: Int) {
        let bit = HoldingChecker.bit(node)
        change {
            if $0.unsafe & bit != 0 { $0.holders &= ~bit }
            $0.unsafe &= ~bit
        }
    }

    /// The process ended in an orderly way.
    mutating func left(_ node: Int) {
        let bit = HoldingChecker.bit(node)
        change { $0.unsafe &= ~bit }
    }

    mutating func wiped(_ node: Int) {
        let bit = HoldingChecker.bit(node)
        change { $0.holders &= ~bit }
    }

    private static func bit(_ node: Int) -> UInt64 { node < 64 ? 1 << UInt64(node) : 0 }

    mutating func stored(_ node: SimulatedNode, _ change: PartitionsChange) -> Violation? {
        guard node.number < 64 else { return nil }
        let space = place(change.namespace)
        for (place, partition) in StoredSample.partitions.enumerated() {
            guard let record = StoredSample.record(change.after, partition, change.namespace),
                let version = record.version, version.isSound
            else { continue }
            // Stored as clean at an orderly stop: what it took is on its medium.
            if !record.isOpen { settle(space, place, node.number) }
            for one in spaces[space].writes[place]
            where one.holders & HoldingChecker.bit(node.number) == 0 && HoldingChecker.says(version, one.epoch) {
                return Violation("P7", "\(node.name) says of partition \(partition) of \(change.namespace) that it is"
                    + " \(version), but it lacks writes of epoch \(one.epoch.words)")
            }
        }
        return nil
    }

    private mutating func settle(_ space: Int, _ place: Int, _ node: Int) {
        for one in spaces[space].writes[place].indices {
            spaces[space].writes[place][one].unsafe &= ~HoldingChecker.bit(node)
        }
    }

    /// Whether a copy of this version says that it holds all writes of an epoch.
    static func says(_ version: PartitionVersion, _ epoch: Epoch) -> Bool {
        let line = version.line
        guard let place = line.firstIndex(of: epoch) else { return false }
        guard let since = version.subsetSince else { return true }
        if epoch.regime >= since.regime { return true }
        return version.base.flatMap { line.firstIndex(of: $0) }.map { place >= $0 } ?? false
    }
}
