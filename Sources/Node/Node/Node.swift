// Start, run and stop of one node.
internal import Base
internal import CReactor
internal import Configuration
internal import Engine
internal import Glibc
internal import Index
internal import Logging
internal import Mount
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
        /// Could not start, or not stop cleanly: the message says why.
        public static let startFailed: Int32 = 1
        /// The configuration has problems: each was printed.
        public static let badConfiguration: Int32 = 2
    }

    /// Runs a node until SIGTERM or SIGINT, on the calling thread and threads of its own. Call once per
    /// process, on the main thread, before any other thread exists.
    /// - Returns: an `ExitCode`.
    public static func run(_ source: Source, backends: [BackendDescriptor]) -> Int32 {
        // Plugins may start threads when they are loaded: these leave the signals alone, too.
        let signals = SignalSet.block()
        guard let (configuration, registry) = load(source, backends) else { return ExitCode.badConfiguration }
        do throws(StartError) {
            let node = try RunningNode(configuration, registry)
            var isClean = false
            do throws(StartError) {
                if try node.open(signals) { try node.serveUntilStopped(signals) }
                isClean = node.end()
            } catch {
                _ = node.end()
                throw error
            }
            return isClean ? ExitCode.stopped : ExitCode.startFailed
        } catch {
            printError(error.message)
            return ExitCode.startFailed
        }
    }

    /// Reads a configuration and prints its problems or, if there are none, its notes; nothing is started.
    /// - Returns: an `ExitCode`: `stopped` if the file is good.
    public static func check(file: String, backends: [BackendDescriptor]) -> Int32 {
        guard let (configuration, registry) = load(.file(file), backends) else { return ExitCode.badConfiguration }
        for note in configuration.notes { print("note: \(note)") }
        // A running node's configuration is checked before it is restarted with it.
        let problems = Mount(registry).problems(MountRequests.all(configuration), ignoresLocks: true)
            + IndexPlace.problems(configuration.namespaces, registry)
        for problem in problems { printError(problem) }
        guard problems.isEmpty else { return ExitCode.badConfiguration }
        print("\(file) is good: namespaces \(configuration.namespaces.map(\.name).joined(separator: ", "))")
        return ExitCode.stopped
    }

    /// Prints what the registry holds: all backends, or everything about the one called `name`; with the plugins that the
    /// file `configuration` loads.
    /// - Returns: an `ExitCode`.
    public static func listBackends(
        named name: String?, configuration: String?, backends: [BackendDescriptor]
    ) -> Int32 {
        do throws(ConfigurationError) {
            let bytes = try configuration.map { (path) throws(ConfigurationError) in try ConfigurationFile.read(path) }
            let registry = try Plugins.registry(backends, bytes, fileName: configuration ?? "")
            guard let name else {
                print(BackendListing.summary(registry))
                return ExitCode.stopped
            }
            guard let descriptor = registry.descriptor(named: name) else {
                let known = registry.descriptors.map(\.name).joined(separator: ", ")
                throw ConfigurationError(problems: ["there is no storage-engine '\(name)'; this node has: \(known)"])
            }
            print(BackendListing.details(descriptor))
            return ExitCode.stopped
        } catch {
            for problem in error.problems { printError(problem) }
            return ExitCode.badConfiguration
        }
    }

    /// One line: the version of Apus and of the protocol.
    public static var versionText: String { "apus \(Product.version), protocol \(Product.build)" }

    /// The configuration, and the registry with the plugins it loads; nil after printing what is wrong.
    private static func load(
        _ source: Source, _ backends: [BackendDescriptor]
    ) -> (NodeConfiguration, BackendRegistry)? {
        do throws(ConfigurationError) {
            switch source {
            case .development:
                let registry = try Plugins.registry(backends, nil, fileName: "--dev")
                let configuration = try NodeConfiguration.development(
                    workDirectory: "./var", registry: registry, processors: Processors.allowed.count)
                return (configuration, registry)
            case .file(let path):
                let bytes = try ConfigurationFile.read(path)
                let registry = try Plugins.registry(backends, bytes, fileName: path)
                let configuration = try ConfigurationParser.parse(
                    bytes, fileName: path, registry: registry, processors: Processors.allowed.count)
                return (configuration, registry)
            }
        } catch {
            for problem in error.problems { printError(problem) }
            return nil
        }
    }

    static func printError(_ message: String) {
        let line = "apus: \(message)\n"
        _ = write(STDERR_FILENO, line, line.utf8.count)
    }
}

/// The signals a node listens to. They are taken by the main thread one at a time; no handler runs.
struct SignalSet {
    private var set = sigset_t()
    /// Those that ask to stop: they come first, however often the others come.
    private var stops = sigset_t()

    /// Blocks them for this thread and all that it starts.
    static func block() -> SignalSet {
        var signals = SignalSet()
        sigemptyset(&signals.set)
        sigemptyset(&signals.stops)
        for number in [SIGTERM, SIGINT] { sigaddset(&signals.stops, number) }
        for number in [SIGTERM, SIGINT, SIGHUP, ControlJobs.signal] { sigaddset(&signals.set, number) }
        pthread_sigmask(SIG_BLOCK, &signals.set, nil)
        return signals
    }

    /// The next signal, or nil after `milliseconds`.
    mutating func wait(milliseconds: Int) -> Int32? {
        var none = timespec()
        let stop = sigtimedwait(&stops, nil, &none)
        guard stop <= 0 else { return stop }
        var timeout = timespec(tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
        let number = sigtimedwait(&set, nil, &timeout)
        return number > 0 ? number : nil
    }
}
