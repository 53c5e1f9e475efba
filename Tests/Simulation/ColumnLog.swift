// The log of one run in columns: virtual time, one column per node, and what happened in words.
internal import Assembly
internal import Fabric
internal import Membership
internal import Partitions

/// Writes a line for each snapshot that is published, each fault, and what the nodes log. A column is the phase (`-` nothing
/// runs, `z` paused, `?` orphan, `~` agreeing, `=` open), the number of the view, the last digits of its key, its members,
/// and how many partitions of the first namespace the node is acting master of.
package final class ColumnLog {
    private let write: (String) -> Void
    private let hasDetails: Bool

    /// With `hasDetails` also what nodes log themselves.
    package init(hasDetails: Bool, write: @escaping (String) -> Void) {
        self.write = write
        self.hasDetails = hasDetails
    }

    func row(_ world: World, _ text: String) { write(head(world) + text) }

    func line(_ world: World, _ text: String, isDetail: Bool) {
        if hasDetails || !isDetail { write(head(world) + text) }
    }

    /// The first line: which column is whom.
    package func title(_ world: World) {
        write(padded("time", 12) + world.nodes.map { padded("\($0.name) \($0.id)", 20) }.joined())
    }

    private func head(_ world: World) -> String {
        let micros = world.now / 1000
        let seconds = String(micros / 1_000_000)
        let rest = String(1_000_000 + micros % 1_000_000).dropFirst()
        // More nodes than fit a screen: words only.
        guard world.nodes.count <= 9 else { return padded("\(seconds).\(rest)", 12) }
        return padded("\(seconds).\(rest)", 12) + world.nodes.map { padded(column($0), 20) }.joined()
    }

    private func column(_ node: SimulatedNode) -> String {
        guard node.isUp else { return "-" }
        guard let snapshot = node.latest else { return node.isPaused ? "z" : "?" }
        let sign = node.isPaused ? "z" : snapshot.phase == .open ? "=" : snapshot.phase == .frozen ? "~" : "?"
        guard let view = snapshot.view else { return sign }
        let key = String(String(view.mark.key, radix: 16).suffix(4))
        var masters = 0
        if let map = snapshot.maps.first, let own = map.nodes.firstIndex(of: node.id) {
            masters = map.actingMasters.reduce(0) { $0 + (Int($1) == own ? 1 : 0) }
        }
        return "\(sign)\(view.mark.number)/\(key) \(view.members.count)m \(masters)"
    }

    private func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }
}
