// Filter expressions: what a record's index entry, and then its image, say about it. Reads, writes, batch rows and queries
// ask here. A slot's filter is counted for the slot from `setFilter` until `countEnd`, so it lives however long the request
// waits and whatever the cache throws out.
internal import Base
internal import Expressions
internal import Index
internal import Record
internal import Wire

extension NamespaceShard {
    /// The filter of a request in its compiled form; nil if the request has none.
    /// - Throws: the error to answer, before anything else is looked at.
    func filter(of request: RequestPointer) throws(ExpressionError) -> Expression? {
        guard request.pointee.has(.filter) else { return nil }
        let filter = try scratch.expressions.expression(request.pointee.filter)
        guard filter.isFilter else { throw .malformed }
        return filter
    }

    /// What the entry of a record says about a filter: nothing is read for it. `needsRecord`: ask `passes`.
    func verdict(_ filter: Expression, _ entry: IndexEntry, _ digest: Digest, _ now: TurnTime) -> Verdict {
        let verdict = filter.metadata(facts(entry, digest, now))
        scratch.expressions.work += filter.work
        return verdict
    }

    /// Whether a record passes. `view` is its image; nil if the entry has decided. Allocates only in the C library's
    /// regular expressions; under a partition's lock only if `filter.isQuick`.
    func passes(
        _ filter: Expression, _ entry: IndexEntry, _ digest: Digest, _ view: ImageView?, _ now: TurnTime
    ) -> Bool {
        var facts = facts(entry, digest, now)
        guard let view else {
            let verdict = filter.metadata(facts)
            assert(verdict != .needsRecord, "the image is there if the entry does not decide")
            return verdict == .isTrue
        }
        if isKeyed {
            // It may be a newer image than the entry's: all facts are of one version.
            facts.lastUpdate = view.lastUpdate
            facts.voidTime = view.voidTime
        }
        let passes = filter.passes(facts, BinSource(view))
        scratch.expressions.work += filter.work
        return passes
    }

    /// What expressions can know from the index. Lends the name of the set, which is never given back.
    func facts(_ entry: IndexEntry, _ digest: Digest, _ now: TurnTime) -> RecordFacts {
        RecordFacts(
            digest: digest, lastUpdate: entry.lastUpdate, voidTime: entry.voidTime, isKeyStored: entry.isKeyStored,
            isTombstone: entry.kind != .live, byteCount: entry.byteCount,
            setName: entry.setID == 0
                ? UnsafeRawBufferPointer(start: nil, count: 0) : namespace.sets.name(of: entry.setID),
            now: now.wall)
    }

    // ---- Slots ----

    /// Compiles the filter of the slot's request, if it has one, and keeps it with the slot.
    func takeFilter(_ slot: SlotPointer) -> ResultCode {
        guard slot.pointee.request.pointee.has(.filter) else { return .ok }
        do throws(ExpressionError) {
            if let filter = try filter(of: slot.pointee.request) { slot.pointee.setFilter(filter) }
            return .ok
        } catch { return error.resultCode }
    }

    /// What the entry says about the slot's filter; true without one.
    func verdict(_ slot: SlotPointer, _ now: TurnTime) -> Verdict {
        guard let filter = slot.pointee.filter else { return .isTrue }
        return filter._withUnsafeGuaranteedRef { verdict($0, slot.pointee.previous, slot.pointee.digest, now) }
    }

    /// Whether the slot's record passes the slot's filter.
    func passes(_ slot: SlotPointer, _ view: ImageView?, _ now: TurnTime) -> Bool {
        guard let filter = slot.pointee.filter else { return true }
        return filter._withUnsafeGuaranteedRef { passes($0, slot.pointee.previous, slot.pointee.digest, view, now) }
    }
}

extension RequestSlot {
    /// Gives the slot a filter: that of its own request, or one that its owner has for all of its requests.
    mutating func setFilter(_ filter: Expression) {
        precondition(self.filter == nil, "a slot has one filter")
        self.filter = .passRetained(filter)
    }

    /// The request has ended.
    mutating func dropFilter() {
        filter?.release()
        filter = nil
    }

    /// Whether the filter may be evaluated under a partition's lock.
    var isFilterQuick: Bool { filter?._withUnsafeGuaranteedRef { $0.isQuick } ?? true }
}
