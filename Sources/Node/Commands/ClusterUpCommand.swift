internal import ArgumentParser
internal import Client
internal import Glibc

/// `apus cluster up`.
struct ClusterUpCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "up",
        abstract: "Start a cluster of several nodes on this machine, for development.",
        discussion: """
            Each node is a process of this binary on 127.0.0.1 with one reactor, a configuration, a log and a directory
            of its own, and namespace 'test'. Ctrl-C stops all of them.

            A directory remembers its cluster: started again with it, the nodes go on with their ids, ports and data.
            What is not said then stays as it was.
            """)

    @OptionGroup var place: ClusterPlace

    @Option(help: "Nodes, 1 to 32. (default: 3, or as the directory says; more than it says adds some)")
    var nodes: Int?

    @Option(help: "Racks that the nodes are spread over. (default: 1, or as the directory says)")
    var racks: Int?

    @Option(help: "Copies of each partition. (default: 2, or as the directory says)")
    var replicationFactor: Int?

    @Option(help: ArgumentHelp(
        "Milliseconds between two heartbeats; a node has departed after ten. (default: 150, or as the directory says)",
        valueName: "ms"))
    var interval: Int?

    @Option(help: ArgumentHelp(
        "Port of the first node for clients, then fabric and heartbeats; the next node's are ten higher. (default: free"
            + " ones)",
        valueName: "port"))
    var basePort: Int?

    @Flag(help: "Keep records in memory only. Without it they are in files of the directory, 256 MB for each node.")
    var inMemory = false

    @Flag(help: "Return when the cluster stands; 'apus cluster down' stops it.")
    var detach = false

    func validate() throws {
        func check(_ value: Int?, _ range: ClosedRange<Int>, _ name: String) throws {
            guard let value, !range.contains(value) else { return }
            throw ValidationError("--\(name) is \(range.lowerBound) to \(range.upperBound)")
        }
        try check(nodes, 1...ClusterLayout.nodesMax, "nodes")
        try check(racks, 1...ClusterLayout.nodesMax, "racks")
        try check(replicationFactor, 1...ClusterLayout.nodesMax, "replication-factor")
        try check(interval, 50...600_000, "interval")
        try check(basePort, 1...65_535 - ClusterLayout.nodesMax * ClusterLayout.portStep, "base-port")
    }

    func run() throws {
        do throws(ClusterCommandError) {
            var start = try ClusterStart(chosen(), isPortChosen: basePort != nil)
            guard try start.bringUp() else { return }
            if detach {
                print("Stop it:      apus cluster down --directory \(place.directory)")
            } else {
                print("Stop it:      Ctrl-C")
                fflush(nil)
                try start.watch()
            }
        } catch {
            printError(error.message)
            throw ExitCode(1)
        }
    }

    /// What the directory remembers, changed by what was said.
    private func chosen() throws(ClusterCommandError) -> ClusterLayout {
        try TextFile.makeDirectory(place.directory)
        guard let directory = TextFile.absolute(place.directory) else {
            throw ClusterCommandError("cannot open \(place.directory): give another --directory")
        }
        let known = try ClusterLayout.load(directory)
        var layout = known ?? ClusterLayout(directory: directory)
        layout.racks = racks ?? layout.racks
        layout.replicationFactor = replicationFactor ?? layout.replicationFactor
        layout.interval = interval ?? layout.interval
        // Data that is in files is not forgotten because somebody left an option out, or put one in.
        if known == nil { layout.isInMemory = inMemory }
        if let known, inMemory, !known.isInMemory {
            throw ClusterCommandError("the cluster in \(directory) keeps its records in files: leave --in-memory out,"
                + " or give another --directory")
        }
        let count = nodes ?? (layout.nodes.isEmpty ? 3 : layout.nodes.count)
        guard count >= layout.nodes.count else {
            throw ClusterCommandError("the cluster in \(directory) has \(layout.nodes.count) nodes, and each may have data"
                + " that no other has: give --nodes \(layout.nodes.count) or more, or another --directory")
        }
        let free = try LocalPorts.free(3 * (count - layout.nodes.count))
        for (place, number) in ((layout.nodes.count + 1)..<(count + 1)).enumerated() {
            layout.nodes.append(ClusterLayoutNode(
                number: number, servicePort: free[3 * place], fabricPort: free[3 * place + 1],
                heartbeatPort: free[3 * place + 2]))
        }
        if let basePort { layout.usePorts(from: basePort) }
        return layout
    }
}

extension ClusterLayout {
    /// Ports that a person can remember.
    mutating func usePorts(from base: Int) {
        for number in nodes.indices {
            let first = base + number * ClusterLayout.portStep
            nodes[number].servicePort = first
            nodes[number].fabricPort = first + 1
            nodes[number].heartbeatPort = first + 2
        }
    }

    /// Gives nodes other ports where somebody else has taken theirs. The nodes do not run.
    mutating func replaceTakenPorts() throws(ClusterCommandError) {
        for number in nodes.indices where !nodes[number].ports.allSatisfy({ LocalPorts.isFree($0) }) {
            let free = try LocalPorts.free(3)
            (nodes[number].servicePort, nodes[number].fabricPort, nodes[number].heartbeatPort) = (free[0], free[1], free[2])
        }
    }
}

/// The start of a local cluster, and the time after it.
struct ClusterStart {
    private static let turnMilliseconds = 100
    private static let progressTurns = 20
    private static let secondsMax = 120
    private var layout: ClusterLayout
    private var processes: ClusterProcesses
    private var signals = EndSignals.block()

    /// Decides about ports. An error if nodes of this layout run.
    init(_ layout: ClusterLayout, isPortChosen: Bool) throws(ClusterCommandError) {
        self.layout = layout
        processes = ClusterProcesses(layout)
        guard processes.running.isEmpty else {
            let names = processes.running.map { "\($0.node.name) (process \($0.process))" }.joined(separator: ", ")
            throw ClusterCommandError("\(names) of \(layout.directory) run already: look at them with 'apus cluster status"
                + " --directory \(layout.directory)', stop them with 'apus cluster down --directory \(layout.directory)'")
        }
        if isPortChosen {
            let taken = layout.nodes.flatMap(\.ports).filter { !LocalPorts.isFree($0) }
            guard taken.isEmpty else {
                throw ClusterCommandError("127.0.0.1:\(taken[0]) is in use by another process: give another --base-port")
            }
        } else {
            try self.layout.replaceTakenPorts()
        }
        processes = ClusterProcesses(self.layout)
    }

    // ---- Up ----

    /// Starts the nodes and waits until they are one cluster. False: a signal has come, and all were stopped. On an error
    /// all are stopped as well.
    mutating func bringUp() throws(ClusterCommandError) -> Bool {
        try layout.store(configure: layout.nodes)
        print("starting \(layout.nodes.count) nodes in \(layout.directory)")
        fflush(nil)
        do throws(ClusterCommandError) {
            for node in layout.nodes { try processes.start(node) }
            guard try awaitWhole() else {
                try stopAll()
                return false
            }
        } catch {
            // The reason comes first; the rest of the cluster must not stay behind it.
            printError(error.message)
            try stopAll()
            throw ClusterCommandError("the cluster was not started")
        }
        report()
        return true
    }

    private mutating func awaitWhole() throws(ClusterCommandError) -> Bool {
        var faults: [String] = []
        for turn in 1...(ClusterStart.secondsMax * 1000 / ClusterStart.turnMilliseconds) {
            if signals.hasCome(milliseconds: ClusterStart.turnMilliseconds) { return false }
            for node in layout.nodes {
                guard let end = processes.collect(node) else { continue }
                throw ClusterCommandError("\(node.name) ended \(end); the end of its log, \(layout.logPath(node)):\n"
                    + processes.endOfLog(node))
            }
            let survey = ClusterScout.survey(layout.nodes.map(\.address))
            faults = survey.faults
            if faults.isEmpty, survey.nodes.count == layout.nodes.count { return true }
            if turn % ClusterStart.progressTurns == 0 {
                print("\(survey.nodes.count) of \(layout.nodes.count) nodes answer: \(faults.first ?? "more to come")")
                fflush(nil)
            }
        }
        throw ClusterCommandError("no cluster after \(ClusterStart.secondsMax) s: \(faults.joined(separator: "; "));"
            + " see the logs in \(layout.directory)")
    }

    private func report() {
        let rows = layout.nodes.map { node in
            [
                node.id, "\(node.address)", "\(layout.rack(node))", "\(processes.process(node) ?? 0)", layout.logPath(node),
            ]
        }
        for line in TextTable.lines([["node", "address", "rack", "process", "log"]] + rows) { print(line) }
        print("""

            Clients:      any of these addresses, namespace 'test'
            Look at it:   apus cluster status \(layout.nodes[0].address)
            """)
    }

    // ---- Afterwards ----

    /// Names nodes that end, until a signal comes or none is left; then stops all.
    mutating func watch() throws(ClusterCommandError) {
        while !signals.hasCome(milliseconds: 5 * ClusterStart.turnMilliseconds) {
            for node in layout.nodes {
                guard let end = processes.collect(node) else { continue }
                printError("\(node.name) ended \(end); the end of its log, \(layout.logPath(node)):\n"
                    + processes.endOfLog(node))
            }
            guard !processes.running.isEmpty else { throw ClusterCommandError("no node runs any more") }
        }
        try stopAll()
    }

    private func stopAll() throws(ClusterCommandError) {
        guard !processes.running.isEmpty else { return }
        var stop = ClusterStop(processes, signals)
        try stop.run()
    }
}
