// Names of changes, and which changes a change knew of. Invariants:
// 1. A version names one change: view, counter and node together are never given twice by a node that has kept its disk.
// 2. Who changes something has seen all that it holds: its version is above the versions of all of that.
// 3. Of each node, a `MetadataLine` names one version; it stands for all earlier ones of that node, too.
package import Base

/// The name of one change, higher for a later one as far as its node could know.
package struct MetadataVersion: Hashable, Comparable, Sendable, BitwiseCopyable, CustomStringConvertible {
    /// Number of the view in which the change was made; 0 on a node without a cluster.
    package let view: UInt64
    /// Counts changes within a view. Without one it is at least the time in milliseconds since 2010, so that of two nodes
    /// that have never met the later change counts.
    package let counter: UInt64
    /// Who made it; 0 if nobody has written that down.
    package let node: NodeID
    /// Above all that is ever given: what comes from elsewhere with more is refused, so that there is always a next one.
    package static let numberMax: UInt64 = 1 << 62
    package static let none = MetadataVersion(view: 0, counter: 0, node: NodeID(rawValue: 0))

    package init(view: UInt64, counter: UInt64, node: NodeID) {
        self.view = view
        self.counter = counter
        self.node = node
    }

    /// Above both this one and everything of earlier views, for a change of `node` in view `view` at `time`.
    package func next(view: UInt64, node: NodeID, time: UInt64) -> MetadataVersion {
        let view = max(view, self.view)
        let counter = view == self.view ? self.counter + 1 : 1
        return MetadataVersion(view: view, counter: view == 0 ? max(counter, time) : counter, node: node)
    }

    package static func < (left: MetadataVersion, right: MetadataVersion) -> Bool {
        (left.view, left.counter, left.node.rawValue) < (right.view, right.counter, right.node.rawValue)
    }

    /// `7.12.BB9`: view, counter, node.
    package var description: String { "\(view).\(counter).\(node)" }

    /// What `description` was; nil if it is something else.
    package init?(written: some StringProtocol) {
        let parts = written.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 3, let view = UInt64(parts[0]), let counter = UInt64(parts[1]),
            let node = UInt64(parts[2], radix: 16), view < MetadataVersion.numberMax, counter < MetadataVersion.numberMax
        else { return nil }
        self.init(view: view, counter: counter, node: NodeID(rawValue: node))
    }
}

/// The changes that a change knew of: for each node the last one.
package struct MetadataLine: Equatable, Sendable, CustomStringConvertible {
    /// By node.
    package private(set) var versions: [MetadataVersion] = []

    package init() {}

    package init(_ versions: [MetadataVersion]) {
        for version in versions { take(version) }
    }

    private func place(of node: NodeID) -> Int { versions.firstIndex { $0.node >= node } ?? versions.count }

    /// Whether that change was known.
    package func covers(_ version: MetadataVersion) -> Bool {
        let place = place(of: version.node)
        return place < versions.count && versions[place].node == version.node && version <= versions[place]
    }

    package mutating func take(_ version: MetadataVersion) {
        let place = place(of: version.node)
        guard place < versions.count, versions[place].node == version.node else {
            return versions.insert(version, at: place)
        }
        versions[place] = max(versions[place], version)
    }

    package mutating func take(_ other: MetadataLine) {
        for version in other.versions { take(version) }
    }

    /// `-`, or versions with a comma between two.
    package var description: String {
        versions.isEmpty ? "-" : versions.map(\.description).joined(separator: ",")
    }

    /// What `description` was; nil if it is something else.
    package init?(written: String) {
        guard written != "-" else { return }
        for part in written.split(separator: ",", omittingEmptySubsequences: false) {
            guard let version = MetadataVersion(written: part) else { return nil }
            take(version)
        }
    }
}
