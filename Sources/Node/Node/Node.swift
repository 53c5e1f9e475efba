// Start, run and stop of one node.
internal import Base
internal import CReactor
internal import Configuration
internal import Engine
internal import Glibc
internal import Index
internal import Logging
internal import Reactor
public import Storage

/// The server. A program with a backend of its own is `Node.run(..., backends: Builtin.descriptors +
/// [Mine.descriptor])`.
public enum Node {
    /// Where the configuration comes from.
    public enum Source: Sendable {
        /// A file in the grammar of `aerospike.conf`.
        case file(String)
        /// Namespace `test` in memory, loopback only, work directory `./var`.
        case development
    }

    /// Exit codes of `run`.
    public enum ExitCode {
        /// Stopped on request.
        public static let stopped: Int32 = 0
        /// Could not start: the message says why.
        public static let startFailed: Int32 = 1
        /// The configuration has problems: each was printed.
        public static let badConfiguration: Int32 = 2
    }

    /// Runs a node until SIGTERM or SIGINT, on the calling thread and threads of its own. Call once per
    /// process, on the main thread, before any other thread exists.
    /// - Returns: an `ExitCode`.
    public static func run(_ source: Source, backends: [BackendDescriptor]) -> Int32 {
        let registry = BackendRegistry(backends)
        guard let configuration = load(source, registry) else { return ExitCode.badConfiguration }
        let signals = SignalSet.block()
        do throws(StartError) {
            let node = try RunningNode(configuration, registry)
            defer { node.end() }
            try node.open()
            node.serveUntilStopped(signals)
            return ExitCode.stopped
        } catch {
            printError(error.message)
            return ExitCode.startFailed
        }
    }

    /// Reads a configuration and prints its problems or, if there are none, its notes; nothing is started.
    /// - Returns: an `ExitCode`: `stopped` if the file is good.
    public static func check(file: String, backends: [BackendDescriptor]) -> Int32 {
        let registry = BackendRegistry(backends)
        guard let configuration = load(.file(file), registry) else { return ExitCode.badConfiguration }
        for note in configuration.notes { print("note: \(note)") }
        let problems = negotiationProblems(configuration, registry)
        for problem in problems { printError(problem) }
        guard problems.isEmpty else { return ExitCode.badConfiguration }
        print("\(file) is good: namespaces \(configuration.namespaces.map(\.name).joined(separator: ", "))")
        return ExitCode.stopped
    }

    /// One line: the version of Apus and of the protocol.
    public static var versionText: String { "apus \(Product.version), protocol \(Product.build)" }

    private static func load(_ source: Source, _ registry: BackendRegistry) -> NodeConfiguration? {
        do throws(ConfigurationError) {
            switch source {
            case .development:
                return try NodeConfiguration.development(
                    workDirectory: "./var", registry: registry, processors: Processors.allowed.count)
            case .file(let path):
                return try ConfigurationFile.load(path, registry)
            }
        } catch {
            for problem in error.problems { printError(problem) }
            return nil
        }
    }

    /// What each namespace needs that its backend does not have: all problems of all namespaces.
    static func negotiationProblems(_ configuration: NodeConfiguration, _ registry: BackendRegistry) -> [String] {
        configuration.namespaces.flatMap { namespace -> [String] in
            do throws(NegotiationError) {
                _ = try registry.negotiate(namespace.storageEngine, requirements(namespace))
                return []
            } catch {
                return error.problems.map { "namespace \(namespace.name): \($0)" }
            }
        }
    }

    static func requirements(_ namespace: NamespaceConfiguration) -> Requirements {
        Requirements(capabilities: [], imageSizeMax: namespace.maxRecordSize)
    }

    static func printError(_ message: String) {
        let line = "apus: \(message)\n"
        _ = write(STDERR_FILENO, line, line.utf8.count)
    }
}

/// The signals a node listens to. They are taken by the main thread one at a time; no handler runs.
struct SignalSet {
    private var set = sigset_t()

    /// Blocks them for this thread and all that it starts.
    static func block() -> SignalSet {
        var signals = SignalSet()
        sigemptyset(&signals.set)
        for number in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&signals.set, number) }
        pthread_sigmask(SIG_BLOCK, &signals.set, nil)
        return signals
    }

    /// The next signal, or nil after `milliseconds`.
    mutating func wait(milliseconds: Int) -> Int32? {
        var timeout = timespec(tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
        let number = sigtimedwait(&set, nil, &timeout)
        return number > 0 ? number : nil
    }
}
