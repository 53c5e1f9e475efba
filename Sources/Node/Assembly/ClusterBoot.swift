// All that the cluster part of a node is told at its start. Plain data: whoever drives it reads files and configuration.
package import Base
package import Fabric
package import Membership
package import Metadata
package import Partitions

/// How nodes find each other.
package enum ClusterMode: Sendable, Equatable {
    /// Not at all: this node is alone, and listens to nobody.
    case alone
    /// Streams to all others, found by seeds.
    case mesh
    /// Datagrams to groups.
    case multicast
}

/// Heartbeat settings.
package struct HeartbeatBoot: Sendable, Equatable {
    package var mode = ClusterMode.alone
    /// Names or numeric addresses: looked up at each try.
    package var seeds: [SeedName] = []
    /// Time between two pulses.
    package var intervalMilliseconds: UInt64 = 150
    /// So many pulses missed in a row, and a node is gone.
    package var timeoutIntervals: UInt64 = 10
    package var connectTimeoutMilliseconds: UInt64 = 500
    /// Largest datagram in bytes.
    package var datagramSizeMax = 1500

    /// The defaults: alone.
    package init() {}
}

/// What the map of a namespace depends on. A change takes effect with the next view.
package struct NamespaceClusterSettings: Sendable, Equatable {
    package let name: String
    package var replicationFactor: UInt32 = 2
    package var rackID: UInt32 = 0
    /// 0: none.
    package var activeRack: UInt32 = 0
    package var prefersUniformBalance = true
    package var isStronglyConsistent = false
    /// `generation` or `last-update-time`.
    package var conflictPolicy = "generation"
    /// Bytes: the least of all nodes holds.
    package var recordSizeMax: UInt64 = 1 << 20
    /// Percent.
    package var stopWritesUsedPercent: UInt32 = 70
    /// Settings that should be equal on all nodes, by name: differences are named in the log.
    package var compared: [NamespaceSetting] = []

    /// The defaults.
    package init(name: String) { self.name = name }
}

/// Settings of the cluster part. `ClusterEvent.settings` brings them again when an operator has changed some.
package struct ClusterSettings: Sendable, Equatable {
    /// Empty: no name. All of this may change while the node runs, but the name, `heartbeat.mode`, `heartbeat.seeds` and
    /// the names of the namespaces.
    package var clusterName = ""
    package var heartbeat = HeartbeatBoot()
    /// A smaller view serves nothing.
    package var minClusterSize = 1
    /// After this a majority of the last view's members is enough at a start.
    package var startWaitMilliseconds: UInt64 = 15_000
    /// After this a start waits for nobody.
    package var startWaitMaxMilliseconds: UInt64 = 60_000
    /// By name.
    package var namespaces: [NamespaceClusterSettings] = []

    /// The defaults: a lone node without namespaces.
    package init() {}
}

/// What a namespace's backend has kept of its partitions.
package struct StoredPartitions: Sendable, Equatable {
    package let namespace: String
    /// One for each partition, or none if it was never stored.
    package let metadata: [[UInt8]]
    /// What the backend has acknowledged is durable: a copy found open at a start is sound.
    package let isDurableAtAcknowledge: Bool
    /// Which partitions have records; one for each, or none if none has.
    package let isFilled: [Bool]

    package init(
        namespace: String, metadata: [[UInt8]], isDurableAtAcknowledge: Bool = false, isFilled: [Bool] = []
    ) {
        precondition(isFilled.isEmpty || isFilled.count == PartitionID.count)
        self.namespace = namespace
        self.metadata = metadata
        self.isDurableAtAcknowledge = isDurableAtAcknowledge
        self.isFilled = isFilled
    }

    /// Whether the partition has records, and nothing was ever stored about it: they are of a version of Apus that knew no
    /// clusters.
    package func isOlderThanClusters(_ partition: Int) -> Bool {
        !isFilled.isEmpty && isFilled[partition] && (metadata.count <= partition || metadata[partition].isEmpty)
    }
}

/// All that the cluster part of a node is told at its start.
package struct ClusterBoot: Sendable {
    package var me: Member
    /// The id of this node before it got its present one; nil if it has always had that.
    package var formerID: NodeID?
    /// Where others dial this node: never `any`, never port 0.
    package var addresses: NodeAddresses
    /// Where clients reach it.
    package var services: ServiceAddresses
    /// Version of the protocol, as `build` answers.
    package var build: String
    package var settings: ClusterSettings
    /// The last `StoreRequest.view`; nil if there was none.
    package var storedView: [UInt8]?
    /// In the order of `settings.namespaces`.
    package var storedPartitions: [StoredPartitions]
    /// What the node's files hold of system metadata.
    package var metadata = MetadataItems()
    package var now: TurnTime
    /// Rules that are switched off: only tests do that.
    package var breaks = ClusterBreaks()
    /// Means nothing unless a rule is switched off: chance that differs from process to process.
    package var processSeed: UInt64 = 0

    package init(
        me: Member, addresses: NodeAddresses, services: ServiceAddresses, build: String, settings: ClusterSettings,
        storedView: [UInt8]?, storedPartitions: [StoredPartitions],
        metadata: MetadataItems = MetadataItems(), now: TurnTime
    ) {
        self.me = me
        self.addresses = addresses
        self.services = services
        self.build = build
        self.settings = settings
        self.storedView = storedView
        self.storedPartitions = storedPartitions
        self.metadata = metadata
        self.now = now
    }
}

/// Rules of the machines that tests switch off.
package struct ClusterBreaks: Sendable {
    package var heartbeat: HeartbeatBreaks = []
    package var views: ViewBreaks = []
    package var partitions: PartitionBreaks = []
    package var metadata: MetadataBreaks = []

    package init() {}
}

/// What was stored cannot be understood: a sentence for the operator.
package struct ClusterBootError: Error, Sendable {
    package let message: String
    package init(_ message: String) { self.message = message }
}

/// What the cluster part of a node counts. Read by whoever drives it, as often as it likes.
package struct ClusterFigures: Sendable, Equatable {
    /// All members of the view report the same view and the same map.
    package var isIntact = false
    /// Of the wall clocks of the view's members, from the earliest to the latest.
    package var clockSkewMilliseconds: UInt64 = 0
    /// Nodes whose clock is more than 10 s off the median, by id; this one may be among them.
    package var clockSkewOutliers: [NodeID] = []
    /// Members of the last view that a start waits for.
    package var waitingFor: [NodeID] = []
    /// Nodes that this one or another member hears, and that are not in its view, by id; not those that just came or went.
    package var nodesOutside: [NodeID] = []
    package var heartbeatConnections: UInt64 = 0
    package var heartbeatReceivedSelf: UInt64 = 0
    package var heartbeatReceivedForeign: UInt64 = 0
    package var fabricConnections: UInt64 = 0
    package var heartbeatOpened: UInt64 = 0
    package var heartbeatClosed: UInt64 = 0
    package var fabricOpened: UInt64 = 0
    package var fabricClosed: UInt64 = 0
    /// Bytes of fabric frames since the start.
    package var fabricTraffic = FabricTraffic()
    /// The other members, and where they are dialled.
    package var fabricPeers: [FabricPeer] = []
    /// An operator has asked this node to be quiesced with the next view.
    package var isQuiescePending = false

    package init() {}
}
