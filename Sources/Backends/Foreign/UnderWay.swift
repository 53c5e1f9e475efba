// Operations of one shard that a plugin has under way. Invariants:
// 1. A ticket is given to the plugin as its tag and means one operation: slot number in the low half, generation above.
// 2. Ending a slot raises its generation: a ticket that comes back twice, or was never given, finds nothing.
// 3. The caller's tags never reach the plugin, so nothing a plugin answers can name an operation that is not its own.
internal import Storage

/// The table of operations under way. One thread.
struct UnderWay {
    enum Kind: UInt8 { case append, read, remove, commit }

    struct Operation {
        let kind: Kind
        let tag: Tag
        /// A read: where from; 0 for the others.
        let location: UInt64
    }

    private var operations: [Operation?] = []
    private var generations: [UInt32] = []
    private var free: [Int] = []

    /// How many there are.
    var count: Int { operations.count - free.count }

    /// Enters an operation; its ticket.
    mutating func begin(_ kind: Kind, _ tag: Tag, location: UInt64 = 0) -> UInt64 {
        let operation = Operation(kind: kind, tag: tag, location: location)
        if let slot = free.popLast() {
            precondition(operations[slot] == nil, "a free slot is empty")
            operations[slot] = operation
            return ticket(slot)
        }
        operations.append(operation)
        generations.append(0)
        return ticket(operations.count - 1)
    }

    /// Takes the operation of `ticket` out; nil if it is not under way.
    mutating func end(_ ticket: UInt64) -> Operation? {
        let slot = Int(ticket & 0xFFFF_FFFF)
        guard slot < operations.count, generations[slot] == UInt32(ticket >> 32), let operation = operations[slot] else {
            return nil
        }
        operations[slot] = nil
        generations[slot] &+= 1
        free.append(slot)
        return operation
    }

    private func ticket(_ slot: Int) -> UInt64 { UInt64(generations[slot]) << 32 | UInt64(slot) }
}
