// The seam between the cluster part of one node and whoever drives it: Node's shell, or the simulator. Both only move bytes,
// timers and completions.
package import Base
package import Fabric
package import Membership
package import Metadata
package import Partitions

/// What an operator asks of the cluster.
package enum ClusterCommand: Sendable, Equatable {
    case recluster
    case quiesce(Bool)
    /// A node to find others by.
    case tip(SeedName)
    /// Forgets tipped addresses; all of them, if none is named.
    case tipClear([SeedName])
}

/// What happens to the cluster part of a node.
package enum ClusterEvent: Sendable {
    /// The time of `deadline` has come.
    case timer
    case heartbeat(StreamEvent)
    case fabric(StreamEvent)
    case datagram([UInt8], from: Address)
    /// Answers `resolve`; no address if there is none.
    case resolved(SeedName, [Address])
    /// Answers `publish`: every reactor goes by it.
    case published(UInt64)
    /// Answers `store`: durable.
    case stored(UInt64)
    /// Answers `store`: not durable, and will not be.
    case notStored(UInt64, reason: String)
    case command(token: UInt64, ClusterCommand)
    /// An operator has changed settings.
    case settings(ClusterSettings)
    /// Changes of system metadata of one request, at that wall clock time in milliseconds since 2010. Answered by
    /// `answerMetadata`.
    case changeMetadata(token: UInt64, [MetadataChange], time: UInt64)
    /// Answers `reserveTimes`, in its order.
    case timesReserved(UInt64, [UInt64])
    /// The node is to stop: it leaves first.
    case leave
}

/// What the cluster part of a node wants done. In this order.
package enum ClusterEffect: Sendable {
    case heartbeat(StreamEffect)
    case fabric(StreamEffect)
    /// To every multicast group.
    case multicast([UInt8])
    case resolve(SeedName)
    /// Durable before it is answered; all of one request, or nothing.
    case store(UInt64, StoreRequest)
    /// From now on this is what clients are served by.
    case publish(ClusterSnapshot)
    /// `ok`, or `ERROR:code:sentence`.
    case answer(token: UInt64, String)
    /// Times after all that this node has published of these namespaces, before which nothing is published any more.
    case reserveTimes(UInt64, [String])
    case answerMetadata(token: UInt64, MetadataAnswer)
    /// The node has left: nothing depends on it any more.
    case left
    case log(ClusterLogLine)
}

/// What has to outlive the process.
package enum StoreRequest: Sendable {
    /// The node's own file: accepted number, last view.
    case view([UInt8])
    /// Metadata of all partitions of these namespaces, with the memory of epochs, beside the namespace's records.
    case partitions([(namespace: String, metadata: [[UInt8]])])
    /// Items of system metadata: merged into the node's files, and put in force before it is answered.
    case metadata([MetadataItem])
}

/// Where a node stands in its cluster.
package enum ClusterPhase: Sendable, Equatable {
    /// Has no view, or waits for the members of its last one: serves nothing.
    case orphan
    /// A view is being agreed on: reads go on by the last map, writes wait.
    case frozen
    /// Serves.
    case open
}

/// All that other threads see of the cluster, at one moment. Immutable.
package final class ClusterSnapshot: Sendable {
    /// Rises with every snapshot.
    package let serial: UInt64
    package let phase: ClusterPhase
    /// The view that is open, or was last; nil before the first.
    package let view: View?
    /// Rises when what is served changes: the maps, or whether there is a view; `partition-generation`.
    package let partitionGeneration: UInt64
    /// Rises when peers or their addresses change; `peers-generation`.
    package let peersGeneration: UInt64
    /// Rises with every view; `rebalance-generation`.
    package let rebalanceGeneration: UInt64
    /// What the maps follow from; nil before the first.
    package let bundle: ClusterMap?
    package var maps: [NamespaceMap] { bundle?.maps ?? [] }
    /// The map of a namespace; nil before the first view, or if no member has it.
    package func map(_ namespace: String) -> NamespaceMap? { bundle?.map(namespace) }
    /// Over all maps: equal on all members.
    package var mapHash: UInt64 { bundle?.hash ?? 0 }
    /// What each other member told of itself, by id.
    package let peers: [PeerDescription]
    /// Ids that more than one node claims.
    package let duplicateNodes: [NodeID]
    /// What is wrong in the cluster, for `info` and the log: differing settings, foreign nodes, one sentence each.
    package let problems: [String]

    package init(
        serial: UInt64, phase: ClusterPhase, view: View?, partitionGeneration: UInt64, peersGeneration: UInt64,
        rebalanceGeneration: UInt64, bundle: ClusterMap?, peers: [PeerDescription], duplicateNodes: [NodeID],
        problems: [String]
    ) {
        self.serial = serial
        self.phase = phase
        self.view = view
        self.partitionGeneration = partitionGeneration
        self.peersGeneration = peersGeneration
        self.rebalanceGeneration = rebalanceGeneration
        self.bundle = bundle
        self.peers = peers
        self.duplicateNodes = duplicateNodes
        self.problems = problems
    }
}

/// How clients reach a member.
package struct ServiceAddresses: Equatable, Sendable {
    /// `host:port`, IPv6 in brackets.
    package var clear: [String]
    package var clearAlternate: [String]
    package var tls: [String]
    package var tlsAlternate: [String]
    package var tlsName: String

    package init(
        clear: [String], clearAlternate: [String], tls: [String] = [], tlsAlternate: [String] = [], tlsName: String = ""
    ) {
        self.clear = clear
        self.clearAlternate = clearAlternate
        self.tls = tls
        self.tlsAlternate = tlsAlternate
        self.tlsName = tlsName
    }
}

/// A member as others see it.
package struct PeerDescription: Equatable, Sendable {
    package let id: NodeID
    package let services: ServiceAddresses
    /// Version of its software.
    package let build: String

    package init(id: NodeID, services: ServiceAddresses, build: String) {
        self.id = id
        self.services = services
        self.build = build
    }
}
