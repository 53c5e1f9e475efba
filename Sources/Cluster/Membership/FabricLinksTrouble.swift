// Peers whose heartbeats are heard, and whose fabric streams do not stand: without them there is no view.
package import Base
package import Fabric

extension FabricLinks {
    /// A stream that stands for so long is one: some are closed at once, when the other end has read who dials.
    func hasStood(_ link: Link, _ now: Instant) -> Bool {
        link.dial.isStanding && now.nanoseconds(since: link.dial.since) >= timeoutNanoseconds
    }

    /// What is wrong between this node and a peer, in one sentence; nil if both streams stand, or have not been missed for
    /// two timeouts.
    package func trouble(with member: Member, now: Instant) -> String? {
        guard let index = index(of: member) else { return nil }
        let link = links[index]
        let patience = 2 * timeoutNanoseconds
        if !hasStood(link, now), now.nanoseconds(since: link.lackingSince) >= patience {
            let failure = link.failure.isEmpty ? "it does not answer" : link.failure
            guard !link.addresses.isEmpty else {
                return "node \(member.id) is heard, but does not say where its fabric port is"
            }
            return "node \(member.id) is heard, but its fabric port is not reached at \(list(link.addresses)): \(failure)."
                + " Look at its fabric.address and at fire walls"
        }
        // Its stream brings something once a second.
        let quiet = max(patience, 4 * FabricLinks.keepAliveMilliseconds * 1_000_000)
        guard now.nanoseconds(since: link.heardAt) >= quiet else { return nil }
        return "node \(member.id) is heard, but does not reach the fabric port of this node, which it was told is at"
            + " \(list(settings.addresses.fabric)). Look at fabric.address here and at fire walls"
    }

    private func list(_ addresses: [Address]) -> String { addresses.map(\.description).joined(separator: " or ") }
}
