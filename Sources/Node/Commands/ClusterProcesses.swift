// The nodes of a local cluster as processes. A node is known by the process id in its work directory, and only if that
// process runs with the node's configuration: an id that the system has given to somebody else is never signalled.
internal import Files
internal import Glibc

/// Starts, finds and stops the nodes of a layout.
struct ClusterProcesses {
    private static let linesTold = 12
    private static let logByteCount = 64 << 10
    let layout: ClusterLayout
    /// Nodes that this process has started; the work directory says so a little later.
    private var started: [Int: pid_t] = [:]

    init(_ layout: ClusterLayout) { self.layout = layout }

    // ---- Which run ----

    /// The process of a node; nil if it does not run.
    func process(_ node: ClusterLayoutNode) -> pid_t? {
        let stored = readSmallFile(layout.lockPath(node)).split(separator: "\n").first.flatMap { pid_t($0) }
        return [started[node.number], stored].compactMap { $0 }.first { isNode($0, node) }
    }

    /// The nodes that run, in order.
    var running: [(node: ClusterLayoutNode, process: pid_t)] {
        layout.nodes.compactMap { node in process(node).map { (node, $0) } }
    }

    /// Those of them that this process has started.
    var runningHere: [ClusterLayoutNode] { running.map(\.node).filter { started[$0.number] != nil } }

    /// A process that has ended, but was not waited for, has no arguments any more.
    private func isNode(_ process: pid_t, _ node: ClusterLayoutNode) -> Bool {
        let arguments = readSmallFile("/proc/\(process)/cmdline").split(separator: "\0")
        return arguments.contains { $0 == layout.configurationPath(node) }
    }

    // ---- Start ----

    /// Starts a node: this very binary, in a process group of its own, so that Ctrl-C reaches this process alone.
    mutating func start(_ node: ClusterLayoutNode) throws(ClusterCommandError) {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(
            &actions, STDOUT_FILENO, layout.logPath(node), O_WRONLY | O_CREAT | O_APPEND, 0o644)
        posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP) | Int16(POSIX_SPAWN_SETSIGMASK))
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setsigmask(&attributes, &none)
        let environment = readSmallFile("/proc/self/environ").split(separator: "\0").map { String($0) }
        var process: pid_t = 0
        let problem = ClusterProcesses.withPointers(["apus", "serve", "--config", layout.configurationPath(node)]) { words in
            ClusterProcesses.withPointers(environment) {
                posix_spawn(&process, "/proc/self/exe", &actions, &attributes, words, $0)
            }
        }
        guard problem == 0 else {
            throw ClusterCommandError("cannot start \(node.name): \(errnoText(problem));"
                + " its log is \(layout.logPath(node))")
        }
        started[node.number] = process
    }

    /// The texts as C wants arguments: pointers, and null behind the last.
    private static func withPointers<Value>(
        _ texts: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Value
    ) -> Value {
        let copies = texts.map { strdup($0) } + [nil]
        defer { for copy in copies { free(copy) } }
        return copies.withUnsafeBufferPointer { body($0.baseAddress!) }
    }

    /// How a process has ended.
    enum End: Equatable {
        /// It was told to stop, and did.
        case stopped
        /// In words.
        case failed(String)
    }

    /// Collects a node that has ended. Nil if it runs, or was not started here.
    mutating func collect(_ node: ClusterLayoutNode) -> End? {
        guard let process = started[node.number] else { return nil }
        var status: Int32 = 0
        guard waitpid(process, &status, WNOHANG) == process else { return nil }
        started[node.number] = nil
        let signal = status & 0x7F
        if status == 0 { return .stopped }
        return .failed(signal == 0 ? "with exit code \(status >> 8 & 0xFF)" : "by signal \(signal)")
    }

    /// What to tell of a node that has ended: how, and the last lines that it has logged.
    func obituary(_ node: ClusterLayoutNode, _ how: String) -> String {
        let end = (try? readEnd(of: layout.logPath(node), byteCount: ClusterProcesses.logByteCount)) ?? []
        let lines = String(decoding: end, as: UTF8.self).split(separator: "\n")
        return "\(node.name) ended \(how); the end of its log, \(layout.logPath(node)):\n"
            + lines.suffix(ClusterProcesses.linesTold).map { "    \($0)" }.joined(separator: "\n")
    }

    // ---- Stop ----

    /// Tells nodes to leave and to stop; a second time: to stop at once.
    func tellToStop(_ nodes: [ClusterLayoutNode]) {
        for node in nodes { if let process = process(node) { kill(process, SIGTERM) } }
    }
}

/// Signals that ask a command to end, taken one at a time by whoever waits for them.
struct EndSignals {
    private var set = sigset_t()

    /// Blocks them for this thread and all that it starts.
    static func block() -> EndSignals {
        var signals = EndSignals()
        sigemptyset(&signals.set)
        for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&signals.set, number) }
        pthread_sigmask(SIG_BLOCK, &signals.set, nil)
        return signals
    }

    /// Whether one has come, or comes within this time.
    mutating func hasCome(milliseconds: Int) -> Bool {
        var time = timespec(tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
        return sigtimedwait(&set, nil, &time) > 0
    }
}
