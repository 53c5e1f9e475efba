// What heartbeats know of other nodes, and views are made of.
package import Base
package import Fabric

/// Which view a node is in: (0, 0) none.
package struct ViewMark: Hashable, Sendable, BitwiseCopyable {
    /// Highest seen + 1, never given up: orders views.
    package let number: UInt64
    /// 40 bits of chance that name the view in epochs and messages; never 0 in a view.
    package let key: UInt64

    package init(number: UInt64, key: UInt64) {
        self.number = number
        self.key = key
    }

    package static let none = ViewMark(number: 0, key: 0)
}

/// A view: who belongs together under one key.
package struct View: Equatable, Sendable {
    package let mark: ViewMark
    /// By id, highest first: the succession list.
    package let members: [Member]
    /// Who proposed it.
    package let proposer: NodeID

    package init(mark: ViewMark, members: [Member], proposer: NodeID) {
        self.mark = mark
        self.members = members
        self.proposer = proposer
    }

    /// The member of the largest id: `cluster_principal`.
    package var principal: NodeID { members[0].id }
}

/// Where a node listens.
package struct NodeAddresses: Equatable, Sendable {
    package var heartbeat: [Address]
    package var fabric: [Address]

    package init(heartbeat: [Address], fabric: [Address]) {
        self.heartbeat = heartbeat
        self.fabric = fabric
    }
}

/// What a node says of itself in every pulse.
package struct PulseContent: Equatable, Sendable {
    /// The view it has open.
    package var view: ViewMark
    /// The highest number it has accepted.
    package var accepted: UInt64
    /// It has been told to stop, and wants to be last in all lists.
    package var isLeaving: Bool
    /// Milliseconds since 2010 by its hybrid logical clock.
    package var clock: UInt64

    package init(view: ViewMark, accepted: UInt64, isLeaving: Bool, clock: UInt64) {
        self.view = view
        self.accepted = accepted
        self.isLeaving = isLeaving
        self.clock = clock
    }
}

/// A node whose pulses arrive.
package struct Neighbour: Equatable, Sendable {
    package let member: Member
    package var addresses: NodeAddresses
    package var content: PulseContent
    /// Whom it hears, by id, itself not among them.
    package var hears: [Member]
    /// It loses far more pulses than the others and departs again and again: better left out of a new view.
    package var isUnhealthy: Bool

    package init(
        member: Member, addresses: NodeAddresses, content: PulseContent, hears: [Member], isUnhealthy: Bool = false
    ) {
        self.member = member
        self.addresses = addresses
        self.content = content
        self.hears = hears
        self.isUnhealthy = isUnhealthy
    }
}
