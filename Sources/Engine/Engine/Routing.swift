// Where a request meets the question who serves its partition: before anything else, and again when it has waited.
internal import Base
internal import Storage

extension NamespaceShard {
    /// Begins the request in `slot`, if its partition is served here.
    @inline(__always)
    func start(_ slot: SlotPointer, now: TurnTime) -> Progress {
        if isRouting, let progress = route(slot) { return progress }
        return slot.pointee.isRead ? startRead(slot, now: now) : startWrite(slot, now: now)
    }

    /// Nil if the partition is served here. Else the request is refused or, while that is being decided, parked.
    func route(_ slot: SlotPointer) -> Progress? {
        // Each copy is truncated by the node that has it.
        if slot.pointee.origin == .truncate { return nil }
        switch cluster.route(slot.pointee.digest.partition, namespace: number, isWrite: !slot.pointee.isRead) {
        case .done: return nil
        case .refused(let result): return refuse(slot, result)
        case .pending:
            // What the engine does of its own accord comes again by itself.
            guard !slot.pointee.isOwn else { return refuse(slot, .unavailable) }
            slot.pointee.isParked = true
            slot.pointee.routedAt = 0
            scratch.parked.append(slot)
            return .suspended
        }
    }

    /// Whether this node is to expire and evict records of the partition; `pending` while that is being decided.
    func rule(of partition: PartitionID) -> EffectAnswer {
        isRouting ? cluster.route(partition, namespace: number, isWrite: true) : .done
    }

    /// Ends a request that has not begun; it may own the claim of its record already.
    func refuse(_ slot: SlotPointer, _ result: ResultCode) -> Progress {
        guard slot.pointee.phase == .claimed else { return end(slot, result) }
        slot.pointee.isDelete = false
        return finish(slot, result)
    }

    /// The epoch of the write in `slot`.
    func epoch(of slot: SlotPointer) -> Epoch {
        cluster.epoch(of: slot.pointee.digest.partition, namespace: number) ?? namespace.epoch
    }
}
