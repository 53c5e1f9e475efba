internal import ArgumentParser

/// `apus cluster down`.
struct ClusterDownCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "down",
        abstract: "Stop the nodes that 'apus cluster up' has started.",
        discussion: """
            They leave the cluster first. Their directory stays: 'apus cluster up' with it goes on with ids and data.
            Ctrl-C stops them at once.
            """)

    @OptionGroup var place: ClusterPlace

    func run() throws {
        do throws(ClusterCommandError) {
            guard let layout = try ClusterLayout.load(place.directory) else {
                throw ClusterCommandError("there is no cluster in \(place.directory):"
                    + " give the --directory of 'apus cluster up'")
            }
            var stop = ClusterStop(ClusterProcesses(layout), EndSignals.block())
            try stop.run()
        } catch {
            printError(error.message)
            throw ExitCode(1)
        }
    }
}

/// Stops the nodes of a local cluster and waits for them.
struct ClusterStop {
    /// `shutdown-grace` and what a node needs to close its devices.
    private static let secondsMax = 45
    private static let turnMilliseconds = 50
    private var processes: ClusterProcesses
    private var signals: EndSignals

    init(_ processes: ClusterProcesses, _ signals: EndSignals) {
        self.processes = processes
        self.signals = signals
    }

    /// Returns when none runs any more.
    mutating func run() throws(ClusterCommandError) {
        let count = processes.running.count
        guard count > 0 else { return print("no node of \(processes.layout.directory) runs") }
        print("stopping \(count) nodes: they leave the cluster first (Ctrl-C: at once)")
        processes.tellToStop()
        for _ in 0..<(ClusterStop.secondsMax * 1000 / ClusterStop.turnMilliseconds) {
            if signals.hasCome(milliseconds: ClusterStop.turnMilliseconds) { processes.tellToStop() }
            for node in processes.layout.nodes { _ = processes.collect(node) }
            if processes.running.isEmpty { return print("stopped; what they keep is in \(processes.layout.directory)") }
        }
        let left = processes.running.map { "\($0.node.name) (\(processes.layout.logPath($0.node)))" }
        throw ClusterCommandError("still running after \(ClusterStop.secondsMax) s: \(left.joined(separator: ", "));"
            + " see the logs, then kill -9 \(processes.running.map { "\($0.process)" }.joined(separator: " "))")
    }
}
