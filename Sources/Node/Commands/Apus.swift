internal import ArgumentParser
internal import Glibc
internal import Node
public import Storage
internal import Synchronization

/// The `apus` program: `Apus.run(backends: Builtin.descriptors + [Mine.descriptor])` is all that a server with a backend of
/// its own needs.
public enum Apus {
    private static let backendList = Mutex<[BackendDescriptor]>([])

    /// What the commands of this process know.
    static var backends: [BackendDescriptor] { backendList.withLock { $0 } }

    /// Does what the process's arguments say with these storage backends, and ends the process. Main thread, before
    /// any other thread exists.
    public static func run(backends: [BackendDescriptor]) -> Never {
        backendList.withLock { $0 = backends }
        ApusCommand.main()
        exit(0)
    }
}

/// The `apus` command.
struct ApusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus",
        abstract: "A record database that speaks the Aerospike client protocol.",
        discussion: """
            Start a node for development, then use any Aerospike client on 127.0.0.1:3000:

              apus serve --dev

            Exit codes: 0 done, 1 failed, 2 the configuration has problems or nothing answered, 64 wrong usage.
            """,
        subcommands: [
            ServeCommand.self, ConfigCommand.self, BackendsCommand.self, InfoCommand.self, RecordCommand.self,
            ClusterCommand.self, WipeCommand.self, ConvertCommand.self, ShmCommand.self, BenchCommand.self,
            VersionCommand.self,
        ])
}

/// `apus serve`.
struct ServeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Run a node in the foreground until SIGTERM or Ctrl-C.",
        discussion: """
            Without --config the node takes /etc/apus/apus.conf if it is there, else it does what --dev does.
            SIGHUP opens the log files again (after rotation).
            """)

    @Option(help: ArgumentHelp("Configuration in the grammar of aerospike.conf.", valueName: "file"))
    var config: String?

    @Flag(help: "Namespace 'test' in memory, loopback only, ports 3000 (service) and 3003 (admin), directory ./var.")
    var dev = false

    func validate() throws {
        if dev, config != nil { throw ValidationError("--dev and --config exclude each other") }
    }

    func run() throws {
        let code = Node.run(source, backends: Apus.backends)
        guard code == Node.ExitCode.stopped else { throw ExitCode(code) }
    }

    private var source: Node.Source {
        if let config { return .file(config) }
        let installed = "/etc/apus/apus.conf"
        if !dev, access(installed, F_OK) == 0 { return .file(installed) }
        return .development
    }
}

/// `apus config`.
struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Work with configuration files.", subcommands: [Check.self])

    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "check",
            abstract: "Read a configuration file and print every problem with its line; start nothing.")

        @Argument(help: "The file.")
        var file: String

        func run() throws {
            let code = Node.check(file: file, backends: Apus.backends)
            guard code == Node.ExitCode.stopped else { throw ExitCode(code) }
        }
    }
}

/// `apus version`.
struct VersionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "version", abstract: "Print the version of Apus and of the protocol it speaks.")

    func run() { print(Node.versionText) }
}
