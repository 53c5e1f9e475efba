// What the world drives: the cluster part of one process. The real one is ClusterNode; ToyProcess tests the world.
package import Assembly
package import Base
package import Fabric
package import Membership
package import Metadata
package import Metadata

/// The cluster part of one process. The world owns it; one thread.
package protocol SimulatedProcess: AnyObject {
    /// One event in, effects out. No clock, no chance of its own, no system call.
    func step(_ event: ClusterEvent, now: TurnTime, random: inout SeededRandom, effects: inout [ClusterEffect])
    /// When it wants `timer`, by its monotonic clock.
    var deadline: Instant { get }
    /// Whether it needs the fabric to be in a view.
    var needsFabric: Bool { get }
}

extension SimulatedProcess {
    package var needsFabric: Bool { true }
}

/// A namespace in the configuration of a simulated node.
package struct SimulatedNamespace: Equatable, Sendable {
    package var name: String
    package var replicationFactor: Int
    package var rack: UInt32
    package var prefersUniformBalance: Bool

    package init(name: String, replicationFactor: Int, rack: UInt32, prefersUniformBalance: Bool) {
        self.name = name
        self.replicationFactor = replicationFactor
        self.rack = rack
        self.prefersUniformBalance = prefersUniformBalance
    }
}

/// What a process is started with: its configuration, what its disk holds, its new incarnation.
package struct SimulatedBoot: Sendable {
    package var member: Member
    package var addresses: NodeAddresses
    package var clusterName = "simulated"
    package var isMulticast = false
    package var intervalMilliseconds: UInt64 = 150
    package var timeoutIntervals: UInt64 = 10
    package var connectTimeoutMilliseconds: UInt64 = 500
    /// Names or addresses to find others by.
    package var seeds: [SeedName] = []
    package var minClusterSize = 1
    package var startWaitMilliseconds: UInt64 = 15_000
    package var startWaitMaxMilliseconds: UInt64 = 60_000
    package var namespaces: [SimulatedNamespace] = []
    /// The node's own file; nil if there is none.
    package var storedView: [UInt8]?
    /// Metadata of the partitions, by namespace as it was stored last.
    package var storedPartitions: [(namespace: String, metadata: [[UInt8]])] = []
    package var metadata = MetadataItems()
    /// Rules that are switched off, for canaries: empty in every honest run.
    package var breaks: [String] = []
    package var now: TurnTime

    package init(member: Member, addresses: NodeAddresses, now: TurnTime) {
        self.member = member
        self.addresses = addresses
        self.now = now
    }
}

/// Starts a process.
package typealias ProcessMaker = (SimulatedBoot) -> any SimulatedProcess
