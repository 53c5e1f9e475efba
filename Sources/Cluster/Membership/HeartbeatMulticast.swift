// Pulses as datagrams to multicast groups: no seeds, no streams, and any of them may be lost.
internal import Base
internal import Fabric

extension Heartbeat {
    mutating func datagram(_ bytes: [UInt8], from: Address) {
        guard settings.mode == .multicast else { return }
        statistics.bytesReceived += UInt64(bytes.count)
        let one: DatagramPulse
        do throws(FabricError) {
            one = try DatagramPulse(datagram: bytes)
        } catch {
            statistics.receivedForeign += 1
            return notice("foreign \(from.host)", "datagrams from \(from) to the heartbeat group are refused: \(error)")
        }
        guard one.clusterName == settings.clusterName else {
            statistics.receivedForeign += 1
            return notice("foreign \(from.host)", "node \(one.member) at \(from) belongs to cluster '\(one.clusterName)',"
                + " this node to '\(settings.clusterName)', and both use the same multicast group")
        }
        guard one.member != member else { return statistics.receivedSelf += 1 }
        introduce(one.member, one.addresses)
        var pulse = one.pulse
        pulse.hears = nil
        guard let index = heard(one.member, pulse, from: from) else { return }
        assemble(one, index)
    }

    /// Whom it hears counts when all parts of one pulse are there.
    private mutating func assemble(_ one: DatagramPulse, _ index: Int) {
        if peers.all[index].partsSequence != one.pulse.sequence || peers.all[index].parts.count != Int(one.parts) {
            peers.all[index].partsSequence = one.pulse.sequence
            peers.all[index].parts = Array(repeating: nil, count: Int(one.parts))
        }
        peers.all[index].parts[Int(one.part)] = one.pulse.hears ?? []
        guard peers.all[index].parts.allSatisfy({ $0 != nil }) else { return }
        take(hears: peers.all[index].parts.flatMap { $0 ?? [] }, serial: one.pulse.serial, index)
        peers.all[index].parts = []
        if peers.all[index].hears.contains(member) { peers.all[index].heardMe = now }
    }
}
