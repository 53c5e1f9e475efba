// The nodes that a namespace in strong consistency counts by, as an item of module `roster` keeps them. What follows from
// them for the namespace is decided elsewhere.
package import Base
package import Fabric

/// Nodes and their racks, by id. As text `BB9@1,A1@0`, the highest id first.
package struct Roster: Equatable, Sendable {
    /// One place in it.
    package struct Seat: Equatable, Sendable {
        package let node: NodeID
        package let rack: UInt32

        package init(node: NodeID, rack: UInt32) {
            self.node = node
            self.rack = rack
        }
    }
    /// By id, highest first, each id once.
    package let seats: [Seat]

    package init(_ seats: [Seat]) {
        var sorted: [Seat] = []
        for seat in seats.sorted(by: { ($1.node, $1.rack) < ($0.node, $0.rack) }) where sorted.last?.node != seat.node {
            sorted.append(seat)
        }
        self.seats = sorted
    }

    /// `NODE[@RACK]` with a comma between two; nil if it is something else, or names a node twice.
    package init?(text: String) {
        var seats: [Seat] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) where !text.isEmpty {
            let words = part.split(separator: "@", omittingEmptySubsequences: false)
            guard words.count <= 2, let id = UInt64(words[0], radix: 16), id != 0,
                let rack = words.count == 2 ? UInt32(words[1]) : 0
            else { return nil }
            seats.append(Seat(node: NodeID(rawValue: id), rack: rack))
        }
        self.init(seats)
        guard self.seats.count == seats.count else { return nil }
    }

    package var text: String { seats.map { "\($0.node)@\($0.rack)" }.joined(separator: ",") }

    /// Whether more than half of it is among `members`; of nobody, always.
    package func hasMajority(among members: [Member]) -> Bool {
        seats.isEmpty || 2 * count(among: members) > seats.count
    }

    /// How many of it are among `members`.
    package func count(among members: [Member]) -> Int {
        seats.count { seat in members.contains { $0.id == seat.node } }
    }

    /// Why a roster may not replace those that are held, nil if it may: it names what it replaces, which has to be all
    /// that is held here, and of which more than half has to be present, unless an operator forces it.
    package static func refusal(
        of item: MetadataItem, over held: [MetadataItem], members: [Member], isForced: Bool
    ) -> String? {
        guard item.value.map({ Roster(text: $0) != nil }) ?? true else { return "a roster is NODE@RACK,NODE@RACK" }
        // What is here already was accepted.
        if held.contains(where: { $0 == item || $0.replaces(item) }) { return nil }
        if let other = held.first(where: { !item.replaces($0) }) {
            return "another change of the roster, version \(other.version), has come first: look at it, then try again"
        }
        guard !isForced, let before = held.first?.value.flatMap({ Roster(text: $0) }) else { return nil }
        guard !before.hasMajority(among: members) else { return nil }
        return "\(before.count(among: members)) of the \(before.seats.count) nodes of the roster before are here, and more"
            + " than half have to be, so that no other part of the cluster decides otherwise"
    }
}
