// What a node publishes, as the checkers look at it.
package import Assembly
internal import Membership
package import Partitions

/// A snapshot and the maps in it. Tests put other maps in place of its own, to see that a checker notices.
package struct Publication {
    package let snapshot: ClusterSnapshot
    package let maps: [NamespaceMap]
    /// Over all maps.
    package let mapHash: UInt64

    package init(_ snapshot: ClusterSnapshot) {
        self.init(snapshot, maps: snapshot.maps, mapHash: snapshot.mapHash)
    }

    package init(_ snapshot: ClusterSnapshot, maps: [NamespaceMap], mapHash: UInt64) {
        self.snapshot = snapshot
        self.maps = maps
        self.mapHash = mapHash
    }

    var serial: UInt64 { snapshot.serial }
    var phase: ClusterPhase { snapshot.phase }
    var view: View? { snapshot.view }
    var partitionGeneration: UInt64 { snapshot.partitionGeneration }
    var peersGeneration: UInt64 { snapshot.peersGeneration }
    var rebalanceGeneration: UInt64 { snapshot.rebalanceGeneration }
    var peers: [PeerDescription] { snapshot.peers }
}
