// Which partitions may be served, decided after the view, for each namespace: all of them in availability mode; in strong
// consistency by the roster, and by what its members remember. Pure, so that a table can test it.
package import Base

/// What is known of one partition of a strongly consistent namespace in a view.
package struct RosterView: Sendable {
    /// A member of the view that is on the roster.
    package struct Present: Sendable {
        package let node: NodeID
        /// The copy that it has; nil: none.
        package let version: PartitionVersion?
        /// The highest epoch that it remembers; nil: it lost its memory, or never had one.
        package let remembered: Epoch?

        package init(node: NodeID, version: PartitionVersion?, remembered: Epoch?) {
            self.node = node
            self.version = version
            self.remembered = remembered
        }

        /// What a claim says.
        package init(node: NodeID, _ claim: PartitionClaim) {
            self.init(
                node: node, version: claim.version, remembered: claim.remembered.rawValue == 0 ? nil : claim.remembered)
        }
    }

    /// All nodes of the roster, in the order of the partition's list: first the roster master, then the roster replicas.
    package let roster: [NodeID]
    /// At least 1; more than the roster has nodes counts as that many.
    package let replicationFactor: Int
    package let present: [Present]

    package init(roster: [NodeID], replicationFactor: Int, present: [Present]) {
        self.roster = roster
        self.replicationFactor = max(1, min(replicationFactor, roster.count))
        self.present = present
    }
}

/// Whether a partition may be served, and why.
package enum Availability: Equatable, Sendable {
    /// Why it may.
    package enum Rule: Equatable, Sendable, CaseIterable {
        /// The roster master and all roster replicas are there.
        case allReplicas
        /// More than half of the roster, and one of those.
        case majority
        /// Exactly half of the roster, and the roster master.
        case halfWithMaster
    }

    /// Why it may not.
    package enum Hindrance: Equatable, Sendable {
        /// No rule of the roster holds: `counting` of `roster` nodes are there and can be relied on.
        case roster(counting: Int, roster: Int)
        /// A node remembers an epoch of which the copies that are there do not have all writes.
        case memory(Epoch)
    }

    case available(Rule)
    case unavailable(Hindrance)

    package var isAvailable: Bool { if case .available = self { true } else { false } }

    /// In availability mode: what is there is served.
    package static func inAvailabilityMode(nodes: Int) -> Bool { nodes > 0 }

    /// In strong consistency. Nodes that came back without their memory, or torn, do not count. On a partition that nobody
    /// ever served there is nothing to lose: all count.
    package static func inStrongConsistency(_ view: RosterView) -> Availability {
        let known = view.present.filter { view.roster.contains($0.node) }
        let isFresh = known.allSatisfy { $0.version == nil && $0.remembered == nil }
        let counting = isFresh ? known : known.filter { $0.remembered != nil && $0.version?.isTorn != true }
        guard let rule = rule(view, counting.map(\.node)) else {
            return .unavailable(.roster(counting: counting.count, roster: view.roster.count))
        }
        let highest = known.compactMap(\.remembered).max { $0.rawValue < $1.rawValue }
        if let highest, !PartitionVersion.areComplete(known.compactMap(\.version), upTo: highest) {
            return .unavailable(.memory(highest))
        }
        return .available(rule)
    }

    /// The first rule of the roster that holds.
    private static func rule(_ view: RosterView, _ counting: [NodeID]) -> Rule? {
        guard let master = view.roster.first else { return nil }
        let replicas = view.roster.prefix(view.replicationFactor)
        if replicas.allSatisfy({ counting.contains($0) }) { return .allReplicas }
        if counting.count * 2 > view.roster.count, replicas.contains(where: { counting.contains($0) }) { return .majority }
        // "More than the roster without the replication factor" is no rule of its own: as a majority it has a replica, and
        // short of one (a factor of half the roster or more) two sides could have it at once.
        return counting.count * 2 == view.roster.count && counting.contains(master) ? .halfWithMaster : nil
    }
}
