// Who serves which partition, as reactors see it. Invariants:
// 1. A table does not change; others are put in its place, and a reactor that has loaded it uses it within one call only.
// 2. What was replaced is freed with the `RetiredRoutes`: when every reactor has taken the letter that brings it, and has
//    answered the writes that it had let through.
internal import Assembly
internal import Base
internal import CBase
internal import Engine
internal import Partitions

/// Answers the engine's questions from the last snapshot. `put` on the cluster's thread, everything else on any.
final class ClusterRouting: ClusterEffects, @unchecked Sendable {
    /// What a node does for a partition.
    private enum Duty {
        static let none: UInt8 = 0
        static let serves: UInt8 = 1
        /// Reads go on, writes wait for the next table.
        static let readsOnly: UInt8 = 2
    }
    private static let epochsOffset = PartitionID.count
    private static let tableSize = PartitionID.count * 9
    // One word for each namespace: the address of its table, 0 for none. A line of its own: read by every request.
    private let words: UnsafeMutablePointer<UInt64>
    private let names: [String]
    private let me: NodeID

    /// Nothing is served. `names`: the namespaces in the engine's order.
    init(names: [String], me: NodeID) {
        self.names = names
        self.me = me
        words = UnsafeMutableRawPointer.allocate(byteCount: 128 + 8 * Limits.namespacesMax, alignment: 128)
            .bindMemory(to: UInt64.self, capacity: 16 + Limits.namespacesMax)
        words.initialize(repeating: 0, count: 16 + Limits.namespacesMax)
    }

    deinit {
        for number in names.indices { UnsafeMutableRawPointer(bitPattern: UInt(words[number]))?.deallocate() }
        words.deallocate()
    }

    // ---- The engine's questions ----

    /// Records have one copy: nobody is asked, nothing is sent.
    let isAlone = true
    let isRouting = true

    @inline(__always)
    private func table(_ namespace: Int) -> UnsafeRawPointer? {
        UnsafeRawPointer(bitPattern: UInt(apus_load_acquire_u64(words + namespace)))
    }

    func route(_ partition: PartitionID, namespace: Int, isWrite: Bool) -> EffectAnswer {
        guard let table = table(namespace) else { return .refused(.unavailable) }
        switch table.load(fromByteOffset: Int(partition.number), as: UInt8.self) {
        case Duty.serves: return .done
        case Duty.readsOnly: return isWrite ? .pending : .done
        default: return .refused(.unavailable)
        }
    }

    func epoch(of partition: PartitionID, namespace: Int) -> Epoch? {
        guard let table = table(namespace) else { return nil }
        let raw = table.load(
            fromByteOffset: ClusterRouting.epochsOffset + 8 * Int(partition.number), as: UInt64.self)
        return raw == 0 ? nil : Epoch(rawValue: raw)
    }

    func resolve(_ slot: SlotPointer) -> EffectAnswer { .done }
    func replicate(_ slot: SlotPointer) -> EffectAnswer { .done }

    // ---- Tables ----

    /// What the snapshot says holds from now on. The answer goes to every reactor; when all have dropped it, `whenGone` is
    /// called, on any thread.
    func put(_ snapshot: ClusterSnapshot, whenGone: @escaping @Sendable () -> Void) -> RetiredRoutes {
        var retired: [UInt] = []
        for (number, name) in names.enumerated() {
            let map = snapshot.map(name)
            let address = map.flatMap { table(of: $0, snapshot.phase) } ?? 0
            let old = apus_exchange_u64(words + number, UInt64(address))
            if old != 0 { retired.append(UInt(old)) }
        }
        return RetiredRoutes(retired, whenGone)
    }

    private func table(of map: NamespaceMap, _ phase: ClusterPhase) -> UInt? {
        let duty: UInt8
        switch phase {
        case .orphan: return nil
        case .frozen: duty = Duty.readsOnly
        case .open: duty = Duty.serves
        }
        guard let own = map.number(of: me) else { return nil }
        let table = UnsafeMutableRawPointer.allocate(byteCount: ClusterRouting.tableSize, alignment: 64)
        for partition in 0..<PartitionID.count {
            let isMaster = map.actingMasters[partition] == own
            table.storeBytes(of: isMaster ? duty : Duty.none, toByteOffset: partition, as: UInt8.self)
            table.storeBytes(
                of: map.epochs[partition].rawValue, toByteOffset: ClusterRouting.epochsOffset + 8 * partition,
                as: UInt64.self)
        }
        return UInt(bitPattern: table)
    }
}

/// Tables that are no longer in force; freed with this object.
final class RetiredRoutes: Sendable {
    private let addresses: [UInt]
    private let whenGone: @Sendable () -> Void

    init(_ addresses: [UInt], _ whenGone: @escaping @Sendable () -> Void) {
        self.addresses = addresses
        self.whenGone = whenGone
    }

    deinit {
        for address in addresses { UnsafeMutableRawPointer(bitPattern: address)?.deallocate() }
        whenGone()
    }
}
