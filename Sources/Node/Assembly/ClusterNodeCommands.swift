// What operators ask of a node, and how it leaves.
internal import Base
internal import Fabric
internal import Membership
internal import Metadata
internal import Partitions

extension ClusterNode {
    mutating func obey(_ command: ClusterCommand, _ token: UInt64) {
        switch command {
        case .recluster: inbox.append(.views(.recluster(token: token)))
        case .quiesce(let isWanted):
            isQuiesced = isWanted
            log(.info, .clustering, isWanted
                ? "quiesce: with the next view (recluster:) this node goes behind all others"
                : "quiesce-undo: with the next view (recluster:) this node takes its place again")
            out.append(.answer(token: token, "ok"))
        case .tip(let seed): askHeartbeat(.tip(seed), token)
        case .tipClear(let seeds): askHeartbeat(.tipClear(seeds), token)
        }
    }

    private mutating func askHeartbeat(_ event: HeartbeatEvent, _ token: UInt64) {
        guard settings.heartbeat.mode == .mesh else {
            out.append(.answer(token: token, "ERROR:4:this node's heartbeat mode is not mesh"))
            return
        }
        tipTokens.append(token)
        inbox.append(.heartbeat(event))
    }

    /// Heartbeats answer in the same step, in order.
    mutating func answerTip(_ text: String) {
        guard !tipTokens.isEmpty else { return }
        out.append(.answer(token: tipTokens.removeFirst(), text))
    }

    mutating func changed(_ new: ClusterSettings) {
        settings = new
        let heartbeat = new.heartbeat
        inbox.append(.heartbeat(.settings(heartbeat.tunables)))
        inbox.append(.links(.timeouts(
            connect: heartbeat.connectTimeoutMilliseconds, heartbeat.intervalMilliseconds * heartbeat.timeoutIntervals)))
        inbox.append(.views(.settings(new.viewSettings)))
    }

    // ---- Leaving ----

    /// The others are told first; when a view has this node behind all others, and nobody tends by an older one any more, it
    /// is done.
    mutating func leave() {
        guard !isLeaving else { return }
        isLeaving = true
        inbox.append(.views(.leave))
    }

    /// Clients tend once a second: so long they may go by the view before.
    private static let lingerMilliseconds: UInt64 = 2000

    mutating func finishLeaving() {
        guard isLeaving, !hasLeft else { return }
        if let doneAt {
            if doneAt <= now.monotonic { storeLast() }
        } else if isAloneOrOrphan {
            storeLast()
        } else if isLastInAllLists {
            sayWhatIsOnlyHere()
            doneAt = now.monotonic.advanced(byMilliseconds: ClusterNode.lingerMilliseconds)
        }
    }

    private var isAloneOrOrphan: Bool { views.phase != .frozen && (views.phase == .orphan || views.view?.members == [me]) }

    private var isLastInAllLists: Bool {
        views.phase == .open && map?.map.blocks.first { $0.member == me }?.block.isLeaving == true
    }

    private mutating func sayWhatIsOnlyHere() {
        for map in map?.map.maps ?? [] {
            let count = (0..<PartitionID.count).count { map.actingMaster($0) == me.id }
            guard count > 0 else { continue }
            log(.warning, .partition, "{\(map.name)} \(count) partitions are served by no other node: they are away until"
                + " this node is back")
        }
    }

    /// Nothing is served any more; when every write that was let through is answered, the copies are said to be whole.
    private mutating func storeLast() {
        guard !isStoringLast else { return }
        isStoringLast = true
        doneAt = nil
        publish(.orphan)
        lastSerial = publishing.serial
        // No view is prepared from here on: else what is stored at the end would take the place of newer records.
        if let mark = preparation?.ready.mark { notPrepared(mark, "this node has stopped serving") }
    }

    /// Every reactor goes by a snapshot: by the last one, perhaps.
    mutating func storeWholeCopies() {
        guard let serial = lastSerial, publishing.confirmed >= serial else { return }
        lastSerial = nil
        for number in partitions.indices {
            for partition in partitions[number].records.indices { partitions[number].records[partition].isOpen = false }
        }
        let stored = partitions.filter { !$0.isDurableAtAcknowledge }.map(\.stored)
        guard !stored.isEmpty else { return endLeaving() }
        let own = purposeTicket { .last(own: $0) }
        out.append(.store(own, .partitions(stored)))
    }

    mutating func endLeaving() {
        hasLeft = true
        inbox.append(.heartbeat(.goodbye))
    }
}
