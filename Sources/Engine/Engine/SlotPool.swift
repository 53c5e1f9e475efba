// The request slots of one reactor. Invariants:
// 1. A slot's address never changes and its memory is never given back: other reactors may hold it in a claim
//    queue.
// 2. A free slot is in no claim list or queue, and its body is kept for the next user while it is small.
internal import Base
internal import Glibc
internal import Wire

/// Hands out slots. Reactor's thread only.
final class SlotPool {
    private static let chunkSlots = 64
    /// A kept body begins with its view; the bytes follow.
    private static let viewRoom = (MemoryLayout<RequestView>.size + 63) / 64 * 64
    private static let bodyKeptMax = 64 << 10
    private let reactor: Int
    private var free: [SlotPointer] = []
    /// Slots that wait for something, in no order; looked through for deadlines.
    private(set) var suspended: [SlotPointer] = []

    init(reactor: Int) {
        self.reactor = reactor
        free.reserveCapacity(4 * SlotPool.chunkSlots)
        suspended.reserveCapacity(4 * SlotPool.chunkSlots)
        grow()
    }

    private func grow() {
        let chunk = SlotPointer.allocate(capacity: SlotPool.chunkSlots)
        chunk.initialize(repeating: RequestSlot(reactor: reactor), count: SlotPool.chunkSlots)
        for number in 0..<SlotPool.chunkSlots { free.append(chunk + number) }
    }

    /// A free slot.
    func take() -> SlotPointer {
        if free.isEmpty { grow() }
        return free.removeLast()
    }

    /// Takes a slot back that was never suspended, or that `resumed` has removed.
    func giveBack(_ slot: SlotPointer) {
        precondition(slot.pointee.claimNext == nil && slot.pointee.waiterFirst == nil)
        if slot.pointee.bodyCapacity > SlotPool.bodyKeptMax {
            slot.pointee.body?.deallocate()
            slot.pointee.body = nil
            slot.pointee.bodyCapacity = 0
        }
        slot.pointee.phase = .free
        free.append(slot)
    }

    /// The request has to wait: copies its bytes into memory of its own, unless an owner keeps them, and remembers it.
    func keepBody(_ slot: SlotPointer) {
        remember(slot)
        guard slot.pointee.owner == nil else { return }
        let bytes = slot.pointee.request.pointee.bytes
        let body = room(slot, SlotPool.viewRoom + bytes.count)
        guard let source = bytes.baseAddress else { return }
        memcpy(body + SlotPool.viewRoom, source, bytes.count)
        let copy = UnsafeRawBufferPointer(start: body + SlotPool.viewRoom, count: bytes.count)
        guard case .request(let request) = RequestView.parse(copy) else {
            preconditionFailure("a request that was parsed once parses again")
        }
        slot.pointee.request = UnsafePointer(body.initializeMemory(as: RequestView.self, to: request))
    }

    /// The same for a request whose owner keeps the bytes, but not the view of them.
    func keepView(_ slot: SlotPointer) {
        remember(slot)
        let view = slot.pointee.request.pointee
        slot.pointee.request = UnsafePointer(
            room(slot, SlotPool.viewRoom).initializeMemory(as: RequestView.self, to: view))
    }

    private func remember(_ slot: SlotPointer) {
        slot.pointee.isLate = true
        slot.pointee.suspendedAt = suspended.count
        suspended.append(slot)
    }

    /// The slot's own memory, `byteCount` bytes at least.
    private func room(_ slot: SlotPointer, _ byteCount: Int) -> UnsafeMutableRawPointer {
        if let body = slot.pointee.body, slot.pointee.bodyCapacity >= byteCount { return body }
        slot.pointee.body?.deallocate()
        let body = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 64)
        slot.pointee.body = body
        slot.pointee.bodyCapacity = byteCount
        return body
    }

    /// A suspended request has ended.
    func resumed(_ slot: SlotPointer) {
        let position = slot.pointee.suspendedAt
        precondition(position >= 0 && suspended[position] == slot, "only a suspended request is resumed")
        let last = suspended.removeLast()
        if last != slot {
            suspended[position] = last
            last.pointee.suspendedAt = position
        }
        slot.pointee.suspendedAt = -1
        giveBack(slot)
    }
}
