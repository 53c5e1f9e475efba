// From a freeze to an open view: the block, the bundle, what is stored, what is served.
internal import Base
internal import Fabric
internal import Membership
internal import Metadata
internal import Partitions

/// The records of all partitions of one namespace, as they are on its medium or on their way there.
struct NamespacePartitions {
    let name: String
    let isDurableAtAcknowledge: Bool
    var records: [PartitionRecord]

    /// What the backends have kept, as a start takes it.
    static func read(_ boot: ClusterBoot) throws(ClusterBootError) -> [NamespacePartitions] {
        var all: [NamespacePartitions] = []
        for settings in boot.settings.namespaces {
            let stored = boot.storedPartitions.first { $0.namespace == settings.name }
            do throws(FabricError) {
                var records = try PartitionRecord.decode(stored?.metadata ?? [], namespace: settings.name)
                if let stored { adopt(stored, boot.me, &records) }
                let isDurable = stored?.isDurableAtAcknowledge ?? false
                all.append(
                    NamespacePartitions(
                        name: settings.name, isDurableAtAcknowledge: isDurable,
                        records: records.map { $0.foundAtStart(isDurableAtAcknowledge: isDurable) }))
            } catch {
                throw ClusterBootError("\(error)")
            }
        }
        return all
    }

    /// Records without metadata are a full copy of an epoch that no other node has: nothing covers it, so it is served, or
    /// merged into what is. The incarnation is as good a key as any, and is stored with the first view.
    private static func adopt(_ stored: StoredPartitions, _ me: Member, _ records: inout [PartitionRecord]) {
        let epoch = Epoch(regime: 1, viewKey: me.incarnation)
        for partition in records.indices where stored.isOlderThanClusters(partition) {
            records[partition] = PartitionRecord(version: PartitionVersion(epoch: epoch))
        }
    }

    /// As backends store them.
    var stored: (namespace: String, metadata: [[UInt8]]) { (name, PartitionRecord.encode(records)) }
}

/// A map whose records are durable here.
struct ReadyMap {
    let mark: ViewMark
    let map: ClusterMap
    let peers: [PeerDescription]
}

/// A bundle on its way to a view.
struct Preparation {
    let ready: ReadyMap
    let partitions: [NamespacePartitions]
    var hasPartitions: Bool
    var hasMetadata: Bool
}

/// What waits for a store.
enum StorePurpose {
    case view(own: UInt64, ticket: UInt64)
    case partitions(own: UInt64, ViewMark)
    case metadata(own: UInt64, ticket: UInt64)
    /// At the end of a node that leaves.
    case last(own: UInt64)

    var own: UInt64 {
        switch self {
        case .view(let own, _), .partitions(let own, _), .metadata(let own, _), .last(let own): own
        }
    }
}

extension ClusterNode {
    // ---- The block ----

    /// Nothing is acknowledged under an older key once every reactor goes by this.
    mutating func freeze(_ number: UInt64) {
        // A node without a view has nothing that it may go on to read from: others may have written since.
        publish(views.phase == .orphan ? .orphan : .frozen)
        guard let snapshot else { return }
        freeze = (number, snapshot.serial)
        if publishing.confirmed >= snapshot.serial { published(publishing.confirmed) }
    }

    mutating func published(_ serial: UInt64) {
        publishing.confirmed = max(publishing.confirmed, serial)
        storeWholeCopies()
        guard let freeze, publishing.confirmed >= freeze.serial else { return }
        self.freeze = nil
        inbox.append(.views(.block(number: freeze.number, block(for: freeze.number))))
    }

    private mutating func block(for number: UInt64) -> [UInt8] {
        let namespaces = settings.namespaces.map { settings in
            settings.block(records: partitions.first { $0.name == settings.name }?.records ?? [], isQuiesced: isQuiesced)
        }
        return NodeBlock(
            namespaces: namespaces, isLeaving: isLeaving, build: build, services: services.bytes,
            systemMetadata: sharing.block(for: number)
        ).encoded
    }

    // ---- The bundle ----

    mutating func prepare(_ view: View, _ blocks: [(member: Member, block: [UInt8])]) {
        preparation = nil
        guard !isStoringLast else {
            return inbox.append(.views(.notPrepared(view.mark, reason: "this node has stopped serving")))
        }
        do throws(FabricError) {
            let map = try ClusterMap.compute(
                number: view.mark.number, key: view.mark.key, encoded: blocks, breaks: breaks.partitions,
                processSeed: processSeed)
            let peers = try map.blocks.filter { $0.member != me }.map { entry throws(FabricError) in
                PeerDescription(
                    id: entry.member.id, services: try ServiceAddresses(entry.block.services), build: entry.block.build)
            }
            begin(Preparation(
                ready: ReadyMap(mark: view.mark, map: map, peers: peers), partitions: following(map), hasPartitions: false,
                hasMetadata: false))
        } catch {
            inbox.append(.views(.notPrepared(view.mark, reason: "the bundle cannot be read: \(error)")))
        }
    }

    /// What this node stores of its namespaces for that map.
    private func following(_ map: ClusterMap) -> [NamespacePartitions] {
        partitions.map { before in
            var after = before
            after.records = map.records(for: me.id, namespace: before.name, before: before.records)
            // From the opening on there may be writes.
            if !before.isDurableAtAcknowledge {
                for number in after.records.indices where after.records[number].version != nil {
                    after.records[number].isOpen = true
                }
            }
            return after
        }
    }

    private mutating func begin(_ new: Preparation) {
        preparation = new
        let mark = new.ready.mark
        let blocks = new.ready.map.blocks.map { MemberBlock(member: $0.member, bytes: $0.block.systemMetadata) }
        inbox.append(.metadata(.prepare(mark, blocks: blocks)))
        if new.partitions.isEmpty {
            preparation?.hasPartitions = true
        } else {
            let own = purposeTicket { .partitions(own: $0, mark) }
            out.append(.store(own, .partitions(new.partitions.map(\.stored))))
        }
    }

    mutating func metadataPrepared(_ mark: ViewMark) {
        guard preparation?.ready.mark == mark else { return }
        preparation?.hasMetadata = true
        finishPreparation()
    }

    private mutating func partitionsStored(_ mark: ViewMark) {
        guard preparation?.ready.mark == mark else { return }
        preparation?.hasPartitions = true
        finishPreparation()
    }

    /// What is stored counts from now on, whether the view opens here or not: it may open elsewhere.
    private mutating func finishPreparation() {
        guard let done = preparation, done.hasPartitions, done.hasMetadata else { return }
        preparation = nil
        partitions = done.partitions
        ready = done.ready
        inbox.append(.views(.prepared(done.ready.mark, mapHash: done.ready.map.hash)))
    }

    mutating func notPrepared(_ mark: ViewMark, _ reason: String) {
        guard preparation?.ready.mark == mark else { return }
        preparation = nil
        inbox.append(.views(.notPrepared(mark, reason: reason)))
    }

    mutating func void(_ mark: ViewMark) {
        if preparation?.ready.mark == mark { preparation = nil }
        if ready?.mark == mark { ready = nil }
    }

    mutating func viewOpens(_ view: View) {
        guard !isStoringLast else { return }
        guard let new = ready, new.mark == view.mark else {
            preconditionFailure("view \(view.mark.number) opens that is not ready")
        }
        freeze = nil
        for problem in new.map.problems where map?.map.problems.contains(problem) != true {
            log(.warning, .partition, problem)
        }
        standing.joined(view.members)
        publishing.count(new, after: map, isBack: snapshot?.phase == .orphan)
        map = new
        publish(.open)
        inbox.append(.metadata(.opened(view)))
    }

    // ---- Stores ----

    mutating func purposeTicket(_ purpose: (UInt64) -> StorePurpose) -> UInt64 {
        lastTicket += 1
        stores.append(purpose(lastTicket))
        return lastTicket
    }

    mutating func stored(_ ticket: UInt64) {
        guard let purpose = finishStore(ticket) else { return }
        switch purpose {
        case .view(_, let ticket): inbox.append(.views(.stored(ticket)))
        case .metadata(_, let ticket): inbox.append(.metadata(.stored(ticket)))
        case .partitions(_, let mark): partitionsStored(mark)
        case .last: endLeaving()
        }
    }

    mutating func notStored(_ ticket: UInt64, _ reason: String) {
        guard let purpose = finishStore(ticket) else { return }
        switch purpose {
        case .view(_, let ticket): inbox.append(.views(.notStored(ticket, reason: reason)))
        case .metadata(_, let ticket): inbox.append(.metadata(.notStored(ticket, reason: reason)))
        case .partitions(_, let mark): notPrepared(mark, "the metadata of partitions is not stored: \(reason)")
        case .last:
            log(.warning, .partition, "the metadata of partitions is not stored: \(reason); the next start takes the copies"
                + " of this node for torn")
            endLeaving()
        }
    }

    private mutating func finishStore(_ ticket: UInt64) -> StorePurpose? {
        stores.firstIndex { $0.own == ticket }.map { stores.remove(at: $0) }
    }
}
