internal import ArgumentParser
internal import Files
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
            What is not said then stays as it was. If some of its nodes run, only the others are started.
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
            try makePlace()
            let lock = try CommandLock(place.directory)
            let (known, layout) = try chosen()
            var start = try ClusterStart(layout, known: known, isPortChosen: basePort != nil)
            guard try start.bringUp() else { return }
            lock.release()
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

    private func makePlace() throws(ClusterCommandError) {
        do throws(FileError) {
            try makeDirectory(place.directory)
        } catch {
            throw ClusterCommandError(error)
        }
    }

    /// What the directory remembers, if it does, and that changed by what was said.
    private func chosen() throws(ClusterCommandError) -> (known: ClusterLayout?, ClusterLayout) {
        guard let directory = realPath(place.directory) else {
            throw ClusterCommandError("cannot open \(place.directory): give another --directory")
        }
        guard !directory.contains(where: { " \t\n#{};\"'".contains($0) }) else {
            throw ClusterCommandError("'\(directory)' cannot stand in a configuration file: give a --directory without"
                + " blanks, # { } ; and quotes")
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
        return (known, layout)
    }
}
