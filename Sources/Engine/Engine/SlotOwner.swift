// Requests that no connection sent: rows of a batch, writes of a query. They run through the same machines; their end
// goes to an owner. Invariants:
// 1. An owner keeps the bytes of its requests, and itself, until each of them has ended.
// 2. `answer` comes once for each request, then `count`; then, if the request had to wait, `ended`.
internal import Base
internal import Storage

/// Whom a slot belongs to if it is not a connection. Subclassed by what has many requests under way; reactor's thread
/// only.
package class SlotOwner {
    /// Its requests are a client's as they are: what a client may not ask for by itself is refused.
    var carriesRequestsOfClients: Bool { false }

    /// The answer to the request of `slot`; `operations` are lent for the call.
    func answer(
        _ slot: SlotPointer, _ result: ResultCode, _ generation: UInt16, _ voidTime: UInt32,
        _ operations: AnswerOperations
    ) { preconditionFailure("an owner answers") }

    /// Counts the end of the request of `slot`.
    func count(_ slot: SlotPointer, _ result: ResultCode, _ counters: ShardCounters) {
        preconditionFailure("an owner counts")
    }

    /// A read that the backend did not answer at once has ended; the slot is the owner's again.
    func scanned(_ slot: SlotPointer, _ result: Completion.Result) { preconditionFailure("an owner hears of its reads") }

    /// A request that had to wait has ended; its slot is not used any more.
    func ended() { preconditionFailure("an owner hears of late ends") }
}

extension RequestSlot {
    /// A client has asked for just this: by itself or in a row of a batch; not by a query, and it is no touch.
    var isClientsOwn: Bool {
        guard origin == .client, let owner else { return origin == .client }
        return owner._withUnsafeGuaranteedRef { $0.carriesRequestsOfClients }
    }
}

/// Operations of an answer, ready to be copied; views.
struct AnswerOperations: BitwiseCopyable {
    var bytes = UnsafeRawBufferPointer(start: nil, count: 0)
    var count = 0
}
