internal import Logging

/// `service { ... }`.
package struct ServiceConfiguration: Sendable {
    package enum AutoPin: String, Sendable { case none, cpu, numa }
    package let clusterName: String?
    package let nodeID: UInt64?
    package let workDirectory: String
    /// Client connections at a time.
    package let protoFdMax: Int
    /// Whether the operator chose `protoFdMax`.
    package let isProtoFdMaxWritten: Bool
    /// Milliseconds; 0 for never.
    package let protoFdIdleMs: Int
    package let serviceThreads: Int
    package let autoPin: AutoPin
    /// Seconds.
    package let tickerInterval: Int
    package let transactionMaxMs: Int
    package let microsecondHistograms: Bool
    package let minClusterSize: Int
    /// Seconds.
    package let startWait: UInt64
    /// Seconds.
    package let shutdownGrace: UInt64
    private let block: ConfiguredBlock

    /// The value of any setting; 0 if it has none.
    package func number(_ name: String) -> UInt64 { block.number(name) ?? 0 }

    init?(_ block: ConfiguredBlock, processors: Int, _ report: (Int, String) -> Void) {
        self.block = block
        clusterName = block.text("cluster-name")
        let id = block.text("node-id").map { $0.lowercased().hasPrefix("0x") ? String($0.dropFirst(2)) : $0 }
        nodeID = id.flatMap { UInt64($0, radix: 16) }
        if let id, nodeID == nil || nodeID == 0 {
            report(block.line, "node-id '\(id)' is not a hexadecimal number of at most 16 digits above 0")
        }
        guard let workDirectory = block.text("work-directory"), let protoFdMax = block.number("proto-fd-max"),
            let idle = block.number("proto-fd-idle-ms"), let ticker = block.number("ticker-interval"),
            let deadline = block.number("transaction-max-ms")
        else { return nil }
        self.workDirectory = workDirectory
        self.protoFdMax = Int(protoFdMax)
        isProtoFdMaxWritten = block.isWritten("proto-fd-max")
        protoFdIdleMs = Int(idle)
        serviceThreads = block.number("service-threads").map { Int($0) } ?? processors
        autoPin = AutoPin(rawValue: block.text("auto-pin") ?? "") ?? .none
        tickerInterval = Int(ticker)
        transactionMaxMs = Int(deadline)
        microsecondHistograms = block.flag("microsecond-histograms")
        minClusterSize = Int(block.number("min-cluster-size") ?? 1)
        startWait = block.number("start-wait") ?? 0
        shutdownGrace = block.number("shutdown-grace") ?? 0
    }
}

/// `network { ... }`.
package struct NetworkConfiguration: Sendable {
    package let service: EndpointConfiguration
    package let admin: EndpointConfiguration
    /// Nil: the node is alone.
    package let heartbeat: HeartbeatConfiguration?
    package let fabric: EndpointConfiguration
    private static let servicePortDefault = 3000
    private static let fabricPortDefault = 3001

    init(_ block: ConfiguredBlock, _ report: (Int, String) -> Void) {
        let service = block.block("service") ?? NodeConfiguration.empty("service", Settings.networkService)
        let admin = block.block("admin") ?? NodeConfiguration.empty("admin", Settings.networkAdmin)
        self.service = EndpointConfiguration(service, portDefault: NetworkConfiguration.servicePortDefault)
        self.admin = EndpointConfiguration(admin, portDefault: nil)
        let fabric = block.block("fabric") ?? NodeConfiguration.empty("fabric", Settings.fabric)
        self.fabric = EndpointConfiguration(fabric, portDefault: NetworkConfiguration.fabricPortDefault)
        heartbeat = block.block("heartbeat").map { HeartbeatConfiguration($0, report) }
        reportSharedPorts(block, report)
    }

    /// Two listeners of this node on one port: a start would say that another process has it.
    private func reportSharedPorts(_ block: ConfiguredBlock, _ report: (Int, String) -> Void) {
        var listeners = [("service", service), ("admin", admin)]
        if let heartbeat {
            listeners.append(("fabric", fabric))
            // Multicast takes a port for datagrams.
            if heartbeat.mode == .mesh { listeners.append(("heartbeat", heartbeat.endpoint)) }
        }
        for (number, (word, endpoint)) in listeners.enumerated() {
            guard let port = endpoint.port, port > 0 else { continue }
            for (other, earlier) in listeners[..<number]
            where earlier.port == port && earlier.sharesAddress(with: endpoint) {
                report((block.block(word) ?? block.block(other) ?? block).line,
                    "\(word) and \(other) both listen on port \(port): give one of them another port")
            }
        }
    }
}

/// Where to listen, and what to tell clients about it.
package struct EndpointConfiguration: Sendable {
    /// Numeric addresses; `any` for all.
    package let bindAddresses: [String]
    /// 0 for a free one; nil if there is to be no listener.
    package let port: Int?
    package let accessAddresses: [String]
    package let accessPort: Int?
    package let alternateAccessAddresses: [String]
    package let alternateAccessPort: Int?

    init(_ block: ConfiguredBlock, portDefault: Int?) {
        let addresses = block.list("address")
        bindAddresses = addresses.isEmpty ? ["any"] : addresses
        port = block.number("port").map { Int($0) } ?? portDefault
        accessAddresses = block.list("access-address")
        accessPort = block.number("access-port").map { Int($0) }
        alternateAccessAddresses = block.list("alternate-access-address")
        alternateAccessPort = block.number("alternate-access-port").map { Int($0) }
    }

    /// Whether an address of the other is one of these, too.
    func sharesAddress(with other: EndpointConfiguration) -> Bool {
        bindAddresses.contains { one in
            other.bindAddresses.contains { another in
                let areIPv6 = (one.contains(":"), another.contains(":"))
                return one == another || areIPv6.0 == areIPv6.1
                    && [one, another].contains { ["any", "0.0.0.0", "::"].contains($0) }
            }
        }
    }
}

/// `logging { ... }`.
enum LogSinks {
    static func read(_ block: ConfiguredBlock?, _ report: (Int, String) -> Void) -> [LogSinkSettings] {
        (block?.blocks ?? []).compactMap { sink in
            let target: LogSinkSettings.Target? =
                switch sink.word {
                case "console": .console
                case "file": .file(sink.argument)
                default: nil
                }
            guard let target else { return nil }
            return LogSinkSettings(target: target, levels: sink.written.compactMap { rule($0.value, $0.line, report) })
        }
    }

    private static func rule(_ text: String, _ line: Int, _ report: (Int, String) -> Void) -> LogSinkSettings.Rule? {
        let words = text.split(separator: " ").map { String($0) }
        guard words.count == 2 else {
            report(line, "context takes a name (or any) and a level, as in: context any info")
            return nil
        }
        let context = LogContext(rawValue: words[0])
        guard context != nil || words[0] == "any" else {
            let meant = NearestName.find(words[0], in: LogContext.allCases.map(\.rawValue) + ["any"])
            report(line, "there is no log context '\(words[0])'" + (meant.map { "; did you mean '\($0)'?" } ?? ""))
            return nil
        }
        guard let level = LogLevel(name: words[1]) else {
            report(line, "'\(words[1])' is no level: critical, warning, info, debug, detail")
            return nil
        }
        return LogSinkSettings.Rule(context: context, level: level)
    }
}
