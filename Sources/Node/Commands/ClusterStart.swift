internal import Bench
internal import Client
internal import Glibc

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

    /// Gives nodes that do not run other ports where somebody else has taken theirs.
    mutating func replaceTakenPorts(of idle: [Int]) throws(ClusterCommandError) {
        for number in nodes.indices where idle.contains(nodes[number].number) {
            guard !nodes[number].ports.allSatisfy({ LocalPorts.isFree($0) }) else { continue }
            let free = try LocalPorts.free(3)
            nodes[number].servicePort = free[0]
            nodes[number].fabricPort = free[1]
            nodes[number].heartbeatPort = free[2]
        }
    }

    /// Whether the nodes of another layout may go on running while the nodes of this one are started: it only has more.
    func extends(_ other: ClusterLayout) -> Bool {
        var same = self
        same.nodes = Array(nodes.prefix(other.nodes.count))
        return same == other
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
    /// Nodes that do not run yet.
    private let idle: [Int]

    /// Decides about ports. `known`: as the directory has it. An error if all nodes run already, or some do and are to
    /// change.
    init(_ layout: ClusterLayout, known: ClusterLayout?, isPortChosen: Bool) throws(ClusterCommandError) {
        self.layout = layout
        let running = ClusterProcesses(layout).running
        idle = layout.nodes.map(\.number).filter { number in !running.contains { $0.node.number == number } }
        let isAllowed = running.isEmpty || !idle.isEmpty && known.map { layout.extends($0) } ?? true
        guard isAllowed else {
            let names = running.map { "\($0.node.name) (process \($0.process))" }.joined(separator: ", ")
            throw ClusterCommandError("\(names) of \(layout.directory) run already: look at them with 'apus cluster status"
                + " --directory \(layout.directory)', stop them with 'apus cluster down --directory \(layout.directory)'"
                + (idle.isEmpty ? "" : " before anything is changed"))
        }
        if isPortChosen {
            let taken = layout.nodes.filter { [idle] in idle.contains($0.number) }.flatMap(\.ports)
                .filter { !LocalPorts.isFree($0) }
            guard taken.isEmpty else {
                throw ClusterCommandError("127.0.0.1:\(taken[0]) is in use by another process: give another --base-port")
            }
        } else {
            try self.layout.replaceTakenPorts(of: idle)
        }
        processes = ClusterProcesses(self.layout)
    }

    // ---- Up ----

    /// Starts the nodes and waits until they are one cluster. False: a signal has come, and what was started is stopped
    /// again. So it is on an error.
    mutating func bringUp() throws(ClusterCommandError) -> Bool {
        let fresh = layout.nodes.filter { idle.contains($0.number) }
        try layout.store(configure: fresh)
        print("starting \(fresh.count) \(fresh.count == 1 ? "node" : "nodes") in \(layout.directory)")
        fflush(nil)
        do throws(ClusterCommandError) {
            for node in fresh { try processes.start(node) }
            guard try awaitWhole() else {
                try stop(processes.runningHere)
                return false
            }
            try serveInAnyNumber()
        } catch {
            // The reason comes first; half a cluster must not stay behind it.
            printError(error.message)
            try stop(processes.runningHere)
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
                switch processes.collect(node) {
                case nil: continue
                case .stopped: throw ClusterCommandError(processes.obituary(node, "because somebody has told it to stop"))
                case .failed(let how): throw ClusterCommandError(processes.obituary(node, how))
                }
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

    /// From here on a part of the nodes is enough.
    private func serveInAnyNumber() throws(ClusterCommandError) {
        for node in layout.nodes {
            let command = "set-config:context=service;min-cluster-size=1"
            var answer = ""
            do throws(BenchError) {
                answer = try ClientSocket.info(node.address, [command]).first?.value ?? ""
            } catch {
                throw ClusterCommandError(error.message)
            }
            guard answer == "ok" else { throw ClusterCommandError("\(node.name) does not take \(command): \(answer)") }
        }
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
            Look at it:   apus cluster status --directory \(layout.directory)
            """)
    }

    // ---- Afterwards ----

    /// Names nodes that end, until a signal comes, or none is left; then stops all. An error if the last one failed.
    mutating func watch() throws(ClusterCommandError) {
        var last = ClusterProcesses.End.stopped
        while !signals.hasCome(milliseconds: 5 * ClusterStart.turnMilliseconds) {
            for node in layout.nodes {
                guard let end = processes.collect(node) else { continue }
                last = end
                switch end {
                case .stopped: print("\(node.name) was told to stop")
                case .failed(let how): printError(processes.obituary(node, how))
                }
            }
            fflush(nil)
            guard processes.running.isEmpty else { continue }
            if last == .stopped { return print("no node runs any more") }
            throw ClusterCommandError("no node runs any more")
        }
        try stop(processes.running.map(\.node))
    }

    private func stop(_ nodes: [ClusterLayoutNode]) throws(ClusterCommandError) {
        guard !nodes.isEmpty else { return }
        var stop = ClusterStop(processes, nodes, signals)
        try stop.run()
    }
}
