internal import ArgumentParser
internal import Node

/// `apus backends`.
struct BackendsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backends",
        abstract: "Print the storage backends of this binary: promises, formats, limits, settings with defaults and units.",
        discussion: """
            With --config, the plugins that the configuration loads are listed too.
            """)

    @Argument(help: "Only the backend of this name, with all its settings.")
    var name: String?

    @Option(help: ArgumentHelp("Configuration whose plugins are loaded first.", valueName: "file"))
    var config: String?

    func run() throws {
        let code = Node.listBackends(named: name, configuration: config, backends: Apus.backends)
        guard code == Node.ExitCode.stopped else { throw ExitCode(code) }
    }
}
