// The end of every request: answer, counters, latency.
internal import Base
internal import Index
internal import Wire

extension NamespaceShard {
    /// Writes the answer of `slot` with what is in `scratch.results`, and counts it.
    func end(_ slot: SlotPointer, _ result: ResultCode) -> Progress {
        if !slot.pointee.isOwn {
            if result == .ok { answerDone(slot) } else { deliver(slot, result, 0, 0, AnswerOperations()) }
        }
        scratch.resetResults()
        countEnd(slot, result)
        return .answered
    }

    /// Gives the answer to whoever waits for it.
    func deliver(
        _ slot: SlotPointer, _ result: ResultCode, _ generation: UInt16, _ voidTime: UInt32,
        _ operations: AnswerOperations
    ) {
        guard let owner = slot.pointee.owner else {
            return AnswerWriter.appendAnswer(
                result: result, generation: generation, voidTime: voidTime, operations: operations.bytes,
                operationCount: operations.count, to: scratch.output)
        }
        owner._withUnsafeGuaranteedRef { $0.answer(slot, result, generation, voidTime, operations) }
    }

    /// A record that is gone has neither generation nor void-time.
    private func answerDone(_ slot: SlotPointer) {
        let entry = slot.pointee.isRead ? slot.pointee.previous : slot.pointee.next
        let isGone = slot.pointee.isDelete
        deliver(
            slot, .ok, isGone ? 0 : entry.generation, isGone ? 0 : entry.voidTime,
            AnswerOperations(bytes: scratch.results.bytes, count: scratch.resultCount))
    }

    /// Counts the end of a request and marks it.
    func countEnd(_ slot: SlotPointer, _ result: ResultCode) {
        slot.pointee.phase = .answered
        slot.pointee.result = result
        if slot.pointee.filter != nil { slot.pointee.dropFilter() }
        if let owner = slot.pointee.owner {
            owner._withUnsafeGuaranteedRef { $0.count(slot, result, counters) }
        } else if slot.pointee.isTouch {
            counters.count(result == .ok ? .readTouchSuccess : .readTouchError)
        } else if slot.pointee.origin.isOwnDelete {
            countOwnDelete(slot, result)
        } else if slot.pointee.isRead {
            countRead(result)
        } else if slot.pointee.request.pointee.header.info2.contains(.delete) {
            countDelete(result)
        } else {
            countWrite(result)
        }
    }

    private func countRead(_ result: ResultCode) {
        switch result {
        case .ok: counters.count(.clientReadSuccess)
        case .notFound: counters.count(.clientReadNotFound)
        case .timeout: counters.count(.clientReadTimeout)
        case .filteredOut: counters.count(.clientReadFilteredOut)
        default: counters.count(.clientReadError)
        }
    }

    private func countDelete(_ result: ResultCode) {
        switch result {
        case .ok: counters.count(.clientDeleteSuccess)
        case .notFound: counters.count(.clientDeleteNotFound)
        case .timeout: counters.count(.clientDeleteTimeout)
        case .filteredOut: counters.count(.clientDeleteFilteredOut)
        default: counters.count(.clientDeleteError)
        }
    }

    private func countWrite(_ result: ResultCode) {
        switch result {
        case .ok: counters.count(.clientWriteSuccess)
        case .timeout: counters.count(.clientWriteTimeout)
        case .filteredOut: counters.count(.clientWriteFilteredOut)
        default: counters.count(.clientWriteError)
        }
    }
}
