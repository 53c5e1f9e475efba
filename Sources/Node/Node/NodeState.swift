// What all threads of one node may ask about it. Invariants:
// 1. Everything but `phase` and `generation` is set before the reactors start, or is safe to read on any
//    thread itself.
// 2. `namespaces` is written once, before `phase` says serving, and read only after that was seen.
internal import Base
internal import CBase
internal import Configuration
internal import Engine
internal import Glibc
internal import Logging
internal import Membership
internal import Reactor
internal import Storage
internal import Synchronization
internal import SystemMetadata

/// Where the node stands.
enum NodePhase: UInt32, Sendable {
    case starting, serving, stopping
}

/// Shared facts of one node.
final class NodeState: @unchecked Sendable {
    private let inForce: Mutex<NodeConfiguration>
    /// The configuration with what has changed since the start. Any thread; not on the data path.
    var configuration: NodeConfiguration { inForce.withLock { $0 } }
    /// System metadata.
    let metadata: MetadataStore
    /// Numbers of the node that may change while it serves.
    let live: LiveSettings<LiveServiceSettings>
    let nodeID: NodeID
    let log: Logger
    let registry: BackendRegistry
    let started: Instant
    let startedUnixSeconds: UInt64
    /// Address and port of every listener, as bound.
    var serviceEndpoints: [Endpoint] = []
    var adminEndpoints: [Endpoint] = []
    /// Where other nodes dial this one; none if it is alone.
    var nodeAddresses = NodeAddresses(heartbeat: [], fabric: [])
    private(set) var namespaces: [Namespace] = []
    // Word 0: phase; 1: steps of the wall clock.
    private let phaseWord: UnsafeMutablePointer<UInt32>
    let reactors = ReactorDirectory()
    let latencies = LatencyHistory()
    let fabricRates = FabricRates()
    let userAgents = UserAgents()
    let controlJobs = ControlJobs()
    let queries = QueryRegistry()
    /// The cluster part of the node, as other threads see it.
    let cluster = ClusterDesk()
    let controlPlane = ControlPlane()
    let startProgress = StartProgress()

    init(
        configuration: NodeConfiguration, metadata: MetadataStore, nodeID: NodeID, log: Logger, registry: BackendRegistry
    ) {
        inForce = Mutex(configuration)
        self.metadata = metadata
        live = LiveSettings(LiveServiceSettings(configuration.service))
        self.nodeID = nodeID
        self.log = log
        self.registry = registry
        started = SystemClock.now().monotonic
        startedUnixSeconds = UInt64(time(nil))
        phaseWord = .allocate(capacity: 2)
        phaseWord.initialize(repeating: 0, count: 2)
        phaseWord.pointee = NodePhase.starting.rawValue
    }

    deinit { phaseWord.deallocate() }

    /// Settings have changed. The control thread.
    func putInForce(_ configuration: NodeConfiguration) { inForce.withLock { $0 = configuration } }

    /// Where the node stands now. Any thread.
    var phase: NodePhase {
        get { NodePhase(rawValue: apus_load_acquire_u32(phaseWord)) ?? .starting }
        set { apus_store_release_u32(phaseWord, newValue.rawValue) }
    }

    /// How often the wall clock was seen to jump by more than a second. Written by the control thread.
    var clockSteps: UInt32 {
        get { apus_load_relaxed_u32(phaseWord + 1) }
        set { apus_store_release_u32(phaseWord + 1, newValue) }
    }

    /// The namespaces serve from now on. Once.
    func serve(_ namespaces: [Namespace]) {
        precondition(phase == .starting && self.namespaces.isEmpty)
        self.namespaces = namespaces
        phase = .serving
    }

    /// The namespaces as far as they serve. Any thread.
    var servingNamespaces: [Namespace] { phase == .starting ? [] : namespaces }

    /// The namespace of that name, if it serves. Any thread.
    func namespace(_ name: String) -> Namespace? {
        servingNamespaces.first { $0.settings.name.utf8.elementsEqual(name.utf8) }
    }

}

/// Address and port of a listener.
struct Endpoint: Sendable, Equatable {
    /// Numeric address, IPv6 without brackets.
    let address: String
    let port: Int

    /// As clients read it: IPv6 in brackets.
    var text: String { address.contains(":") ? "[\(address)]:\(port)" : "\(address):\(port)" }
}
