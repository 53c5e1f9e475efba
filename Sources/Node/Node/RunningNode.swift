// One node from start to stop, on the main thread. Order: directory, identity, listeners and reactors (info
// answers from here on), backends, indexes, engines (data is served from here on). Stop is the way back.
internal import Assembly
internal import Base
internal import CReactor
internal import Configuration
internal import Engine
internal import Fabric
internal import Files
internal import Glibc
internal import Index
internal import Logging
internal import Mount
internal import Reactor
internal import Storage
internal import SystemMetadata

/// A node that is starting, running or stopping. Main thread.
final class RunningNode {
    private let configuration: NodeConfiguration
    private let registry: BackendRegistry
    private let directory: WorkDirectory
    private let log: Logger
    private let state: NodeState
    private var opened: [OpenNamespace] = []
    /// Names this run of the node: another one is another member.
    private let incarnation: UInt64
    private let identity: NodeIdentity
    private var sockets = ClusterSockets()
    private var cluster: ClusterShell?
    private let clientsMax: Int

    init(_ configuration: NodeConfiguration, _ registry: BackendRegistry) throws(StartError) {
        self.configuration = configuration
        self.registry = registry
        clientsMax = try Descriptors.clientsMax(configuration.service)
        directory = try WorkDirectory(path: configuration.service.workDirectory)
        do throws(LogError) {
            log = try Logger(sinks: configuration.logging)
        } catch {
            throw StartError("\(error)")
        }
        var entropy = SystemRandomNumberGenerator()
        identity = try directory.identity(configured: configuration.service.nodeID.map { NodeID(rawValue: $0) }) {
            NodeID(rawValue: entropy.next() & 0x0FFF_FFFF_FFFF | 0xA0_0000_0000_00)
        }
        let nodeID = identity.id
        incarnation = entropy.next() | 1
        let metadata: MetadataStore
        do throws(MetadataError) {
            metadata = try MetadataStore(path: directory.path + "/smd", node: nodeID)
        } catch {
            throw StartError(error.message)
        }
        state = NodeState(
            configuration: configuration, metadata: metadata, nodeID: nodeID, log: log, registry: registry)
        var numbers = LiveServiceSettings(configuration.service)
        numbers.clientConnectionsMax = UInt32(clientsMax)
        _ = state.live.change(to: numbers)
        apus_crash_install(log.crashDescriptor)
        log.info(.as, "apus \(Product.version) starts as node \(nodeID), process \(getpid()),"
            + " work directory \(directory.path)")
        tellOfNewID()
        for note in configuration.notes { log.warning(.config, note) }
        if clientsMax < configuration.service.protoFdMax {
            log.warning(.socket, "at most \(clientsMax) clients: this process may open no more files; proto-fd-max is"
                + " \(configuration.service.protoFdMax), raise the limit for that (ulimit -n, or LimitNOFILE)")
        }
    }

    private func tellOfNewID() {
        guard identity.isNew, let former = identity.former else { return }
        log.warning(.config, "node-id is \(identity.id), and this work directory belonged to node \(former): from now on it"
            + " is \(identity.id), a new node for its cluster. Records and system metadata stay; at this start it waits for"
            + " the other members of its last view, not for \(former)")
    }

    // ---- Start ----

    /// Opens everything; the node serves when this returns true. False: a signal has asked to stop before that.
    func open(_ signals: SignalSet) throws(StartError) -> Bool {
        let requests = MountRequests.all(
            configuration, log: { [log] in log.info(.storage, $0) }, warn: { [log] in log.warning(.storage, $0) })
        let openings = zip(configuration.namespaces, requests).map { opening($0, $1) }
        let problems = Mount(registry).problems(requests)
            + IndexPlace.problems(configuration.namespaces, registry)
        guard problems.isEmpty else { throw StartError(problems.joined(separator: "\napus: ")) }
        sockets = try ClusterSockets(configuration.network)
        state.nodeAddresses = sockets.addresses
        try startReactors()
        // Only when all are open: what is wrong with the last is said before the first has been read for an hour.
        for opening in openings { opened.append(try opening.open()) }
        for (number, opening) in openings.enumerated() {
            guard try fill(number, opening, signals) else { return false }
        }
        let namespaces = opened.map(\.namespace)
        let routing = ClusterRouting(names: namespaces.map(\.settings.name), me: state.nodeID)
        try installEngines(namespaces, routing)
        state.serve(namespaces)
        try joinCluster(namespaces, routing)
        return true
    }

    /// From here on the node takes part in its cluster, and serves what the cluster gives it.
    private func joinCluster(_ namespaces: [Namespace], _ routing: ClusterRouting) throws(StartError) {
        let stores = try ClusterStores(
            workDirectory: directory.path, namespaces: namespaces, controlPlane: state.controlPlane)
        let settings = ClusterSettings(configuration)
        var entropy = SystemRandomNumberGenerator()
        var boot = ClusterBoot(
            me: Member(id: state.nodeID, incarnation: incarnation), addresses: sockets.addresses, services: state.services,
            build: Product.build, settings: settings, storedView: try stores.loadView(),
            storedPartitions: try stores.loadPartitions(settings.namespaces.map(\.name)),
            now: SystemClock.now())
        boot.metadata = state.metadata.items
        boot.formerID = identity.former
        tellOfOldRecords(boot.storedPartitions)
        let served = namespaces.map { "\($0.settings.name) (\($0.agreement.backend))" }.joined(separator: ", ")
        let cluster = try ClusterShell(
            boot, state: state, routing: routing, stores: stores, sockets: sockets, seed: entropy.next()
        ) { [state] in
            let endpoints = state.serviceEndpoints.map(\.text).joined(separator: ", ")
            state.log.info(.as, "service ready on \(endpoints): namespaces \(served)")
        }
        try sockets.open()
        sockets = ClusterSockets()
        try cluster.start()
        self.cluster = cluster
    }

    private func tellOfOldRecords(_ stored: [StoredPartitions]) {
        for one in stored {
            let count = (0..<PartitionID.count).count { one.isOlderThanClusters($0) }
            guard count > 0 else { continue }
            log.info(.partition, "{\(one.namespace)} \(count) partitions have records and no metadata: a version that knew"
                + " no clusters has written them; they count as full copies")
        }
    }

    private func opening(_ settings: NamespaceConfiguration, _ request: MountRequest) -> NamespaceOpening {
        let owner = absolutePath(directory.path)
        return NamespaceOpening(
            settings: settings, request: request, registry: registry,
            place: IndexPlace.choose(settings, registry, owner: owner, log: request.log), owner: owner,
            epoch: Epoch(regime: 1, viewKey: incarnation), reactors: configuration.service.serviceThreads, log: log)
    }

    /// Brings the index of a namespace up to what its medium holds. False if a signal has asked to stop meanwhile.
    private func fill(_ number: Int, _ opening: NamespaceOpening, _ signals: SignalSet) throws(StartError) -> Bool {
        try state.exchangeMetadata(with: opened[number].namespace)
        guard try fillIndex(number, opening, signals) else { return false }
        state.applyMetadata(to: opened[number].namespace)
        return try complete(number)
    }

    private func fillIndex(_ number: Int, _ opening: NamespaceOpening, _ signals: SignalSet) throws(StartError) -> Bool {
        let threads = configuration.service.serviceThreads
        switch try WarmStartRun.run(opened[number].namespace, threads: threads, signals, log) {
        case .serves: return true
        case .stopAsked: return false
        case .cold: break
        case .untrusted(let reason):
            // Nothing of it may be left: it holds the locks of its media.
            _ = opened.remove(at: number).close()
            opened.insert(try opening.open(coldReason: reason), at: number)
        }
        return try fillCold(number, opening, signals)
    }

    /// Reads the medium, a second time if shared memory that nobody has asked for turns out too small. False if a signal has
    /// asked to stop meanwhile.
    private func fillCold(_ number: Int, _ opening: NamespaceOpening, _ signals: SignalSet) throws(StartError) -> Bool {
        if opened[number].namespace.agreement.capabilities.contains(.volatile) { return true }
        let outcome = try ColdStartRun.run(
            opened[number].namespace, recordsMax: NamespaceOpening.recordsMax, threads: configuration.service.serviceThreads,
            signals, log, state.startProgress)
        switch outcome {
        case .serves: return true
        case .stopAsked: return false
        case .noRoom(let count):
            let problem = opened[number].noRoom(for: count, in: opening.place.mounts)
            guard opening.place.isDefault, opened[number].memory != nil else {
                throw StartError("namespace \(opening.settings.name): \(problem)")
            }
            opened.remove(at: number).closeForgetting(log)
            opened.insert(try opening.openInOrdinaryMemory(because: problem), at: number)
            return try fillCold(number, opening, signals)
        }
    }

    /// From here on what the namespace's memory holds can be gone on from. True.
    private func complete(_ number: Int) throws(StartError) -> Bool {
        do throws(StorageError) {
            try opened[number].complete()
            return true
        } catch {
            throw StartError("namespace \(opened[number].namespace.settings.name) does not open: \(error.text)")
        }
    }

    private func startReactors() throws(StartError) {
        let service = configuration.service
        do throws(ListenError) {
            let network = configuration.network
            var listeners = try listen(network.service, kind: ConnectionKind.service)
            state.serviceEndpoints = accessEndpoints(listeners, network.service)
            if network.admin.port != nil {
                let admin = try listen(network.admin, kind: ConnectionKind.admin)
                state.adminEndpoints = accessEndpoints(admin, network.admin)
                listeners += admin
            }
            let processors = Processors.forReactors(service.autoPin)
            for number in 0..<service.serviceThreads {
                let shell = ReactorShell(state: state, number: number)
                let reactor = Reactor(
                    index: number, handler: shell,
                    settings: ReactorSettings(
                        pin: service.autoPin == .none ? nil : processors[number % processors.count],
                        idleMilliseconds: UInt64(service.protoFdIdleMs),
                        connectionsMax: [clientsMax, Limits.adminConnectionsMax],
                        log: { [log] in log.warning(.socket, $0) }))
                shell.attach(reactor)
                state.reactors.add(reactor, shell)
            }
            Reactor.connect(state.reactors.all, listeners: listeners)
        } catch {
            throw StartError(error.message)
        }
        for reactor in state.reactors.all { reactor.start() }
    }

    private func listen(_ settings: EndpointConfiguration, kind: UInt8) throws(ListenError) -> [Listener] {
        var listeners: [Listener] = []
        for address in settings.bindAddresses {
            listeners.append(try Listener.open(address: address, port: settings.port ?? 0, kind: kind))
        }
        return listeners
    }

    /// What clients are told: the configured access addresses, or what is bound.
    private func accessEndpoints(_ listeners: [Listener], _ settings: EndpointConfiguration) -> [Endpoint] {
        let port = settings.accessPort ?? listeners.first?.port ?? 0
        if !settings.accessAddresses.isEmpty {
            return settings.accessAddresses.map { Endpoint(address: $0, port: port) }
        }
        return listeners.flatMap { listener in
            Interfaces.addresses(behind: listener.address).map { Endpoint(address: $0, port: listener.port) }
        }
    }

    private func installEngines(_ namespaces: [Namespace], _ routing: ClusterRouting) throws(StartError) {
        let count = configuration.service.serviceThreads
        // All shards are made before the first reactor sees one: a backend knows its shards while they run.
        var shards: [[any BackendShard]] = []
        for number in 0..<count { shards.append(try makeShards(namespaces, number, of: count)) }
        for (number, shell) in state.reactors.shells.enumerated() {
            shell.offer(
                EngineShard(
                    reactor: number, of: count, namespaces: namespaces, backends: shards[number], shell: shell,
                    cluster: routing, queries: state.queries, service: state.live,
                    log: { [log] in log.warning(.rw, $0) }))
            let letter = UnsafeMutablePointer<Letter>.allocate(capacity: 1)
            letter.initialize(to: Letter(kind: NodeLetter.installEngine))
            state.reactors.post(number, letter)
        }
    }

    private func makeShards(
        _ namespaces: [Namespace], _ number: Int, of count: Int
    ) throws(StartError) -> [any BackendShard] {
        var shards: [any BackendShard] = []
        let reactor = state.reactors.all[number]
        for namespace in namespaces {
            do throws(StorageError) {
                shards.append(
                    try namespace.backend.makeShard(
                        ShardRequest(
                            index: number, count: count, wakeDescriptor: reactor.wakeDescriptor,
                            milliseconds: { SystemClock.monotonic().nanoseconds / 1_000_000 }, wake: { reactor.wakeUp() })))
            } catch {
                throw StartError("namespace \(namespace.settings.name) does not open: \(error.text)")
            }
        }
        return shards
    }

    // ---- Run ----

    /// Ticks every second, whatever signals and jobs come, until a signal asks to stop, or a backend says that the node has
    /// to: then it is an error.
    func serveUntilStopped(_ signals: SignalSet) throws(StartError) {
        var signals = signals
        let jobs = state.controlJobs
        jobs.attach()
        var ticker = Ticker(state: state)
        var fatal = ticker.tick()
        var due = RunningNode.nextTick
        var grace: Instant?
        while fatal == nil {
            let left = (grace.map { min($0, due) } ?? due).nanoseconds(since: SystemClock.monotonic())
            switch signals.wait(milliseconds: jobs.isEmpty ? Int(left / 1_000_000) + 1 : 0) {
            case SIGHUP: log.reopen()
            case SIGTERM, SIGINT:
                // The second one does not wait for the cluster.
                guard grace == nil, let cluster else { return }
                log.info(.as, "asked to stop: leaving the cluster")
                grace = SystemClock.monotonic().advanced(byMilliseconds: configuration.service.shutdownGrace * 1000)
                cluster.leave()
            default: jobs.runNext()
            }
            if let grace, isOver(grace) { return }
            guard SystemClock.monotonic() >= due else { continue }
            fatal = ticker.tick()
            due = RunningNode.nextTick
        }
        if let fatal { throw StartError("stopping: \(fatal)") }
    }

    /// Whether a node that leaves may go: nothing depends on it any more, or it has waited long enough.
    private func isOver(_ grace: Instant) -> Bool {
        if state.cluster.hasLeft { return true }
        guard SystemClock.monotonic() >= grace else { return false }
        log.warning(.clustering, "stopping although the cluster may depend on this node still: shutdown-grace"
            + " (\(configuration.service.shutdownGrace) s) is over")
        return true
    }

    private static var nextTick: Instant { SystemClock.monotonic().advanced(byMilliseconds: 1000) }

    // ---- Stop ----

    /// Stops whatever has been started. False: a backend could not write out what was under way.
    func end() -> Bool {
        state.phase = .stopping
        cluster?.stop()
        state.controlJobs.finish()
        let aborted = state.queries.abortAll()
        if aborted > 0 { log.info(.query, "\(aborted) queries were aborted: the node stops") }
        log.info(.as, "stopping: answering what has been asked, closing connections")
        for reactor in state.reactors.all { reactor.stop() }
        for reactor in state.reactors.all { reactor.join() }
        var isClean = true
        for one in opened {
            guard let error = one.close() else { continue }
            let name = one.namespace.settings.name
            log.warning(.storage, "{\(name)} does not close: \(error.text); what was written last may be lost")
            isClean = false
        }
        log.info(.as, isClean ? "stopped" : "stopped, not cleanly")
        return isClean
    }
}
