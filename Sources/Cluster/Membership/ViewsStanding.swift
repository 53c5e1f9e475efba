// What agreement knows of nodes that are not in the view, for those who have to say it.
package import Base
internal import Fabric

/// Why a node that is heard is not in a view with this one.
package enum ViewObstacle: Equatable, Sendable {
    /// It does not hear this node.
    case deaf
    /// Too many of its pulses are lost.
    case unhealthy
    /// It does not answer what it is asked on the fabric.
    case silent
    /// It and these nodes do not hear each other both ways.
    case unlinked([NodeID])
}

extension Views {
    /// All nodes that are heard, by id.
    package var heard: [Neighbour] { neighbours }

    /// Why this node belongs to no view; empty if it does, or if that is not known yet.
    package var reasonForNoView: String { phase == .orphan ? orphanReason : "" }

    /// What stands between this node and one that it hears; nil if nothing is known.
    package func obstacle(to node: Neighbour) -> ViewObstacle? {
        if isUnhealthy(node) { return .unhealthy }
        guard contains(node.hears, me) else { return .deaf }
        if group.leftOut.contains(node.member) {
            let missing = neighbours.filter { other in
                other.member != node.member && group.members.contains(other.member)
                    && !(node.hears.contains(other.member) && other.hears.contains(node.member))
            }
            if !missing.isEmpty { return .unlinked(missing.map(\.member.id)) }
        }
        return (suspects + formerSuspects).contains { $0.member == node.member } ? .silent : nil
    }
}
