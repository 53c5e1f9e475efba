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
            let processes = ClusterProcesses(layout)
            let running = processes.running.map(\.node)
            guard !running.isEmpty else { return print("no node of \(layout.directory) runs") }
            var stop = ClusterStop(processes, running, EndSignals.block())
            try stop.run()
        } catch {
            printError(error.message)
            throw ExitCode(1)
        }
    }
}
