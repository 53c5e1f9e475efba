internal import Glibc

/// Stops nodes of a local cluster and waits for them.
struct ClusterStop {
    /// `shutdown-grace` and what a node needs to close its devices.
    private static let secondsMax = 45
    private static let turnMilliseconds = 50
    private var processes: ClusterProcesses
    private let nodes: [ClusterLayoutNode]
    private var signals: EndSignals

    init(_ processes: ClusterProcesses, _ nodes: [ClusterLayoutNode], _ signals: EndSignals) {
        self.processes = processes
        self.nodes = nodes
        self.signals = signals
    }

    /// Returns when none of them runs any more.
    mutating func run() throws(ClusterCommandError) {
        let what = nodes.count == 1 ? "1 node: it leaves" : "\(nodes.count) nodes: they leave"
        print("stopping \(what) the cluster first (Ctrl-C: at once)")
        fflush(nil)
        processes.tellToStop(nodes)
        for _ in 0..<(ClusterStop.secondsMax * 1000 / ClusterStop.turnMilliseconds) {
            if signals.hasCome(milliseconds: ClusterStop.turnMilliseconds) { processes.tellToStop(nodes) }
            for node in nodes { _ = processes.collect(node) }
            guard nodes.contains(where: { processes.process($0) != nil }) else {
                return print("stopped; what was kept is in \(processes.layout.directory)")
            }
        }
        let left = nodes.compactMap { node in processes.process(node).map { (node, $0) } }
        throw ClusterCommandError("still running after \(ClusterStop.secondsMax) s:"
            + " \(left.map { "\($0.0.name) (\(processes.layout.logPath($0.0)))" }.joined(separator: ", "));"
            + " see the logs, then kill -9 \(left.map { "\($0.1)" }.joined(separator: " "))")
    }
}
