/// What a log line is about, in the original's words and order.
package enum LogContext: String, CaseIterable, Sendable {
    case misc, alloc, arenax, hardware, msg, os, secrets, socket, tls, vault, vmapx, xmem, aggr, appeal
    case `as`, audit, batch
    case batchSub = "batch-sub"
    case bin, config, clustering, deprecation
    case memoryDriver = "drv-mem"
    case pmemDriver = "drv_pmem"
    case deviceDriver = "drv_ssd"
    case exchange, exp, fabric, flat, geo
    case heartbeat = "hb"
    case health, hlc, index, info
    case infoCommand = "info-command"
    case keyBusy = "key-busy"
    case migrate
    case transactionAudit = "mrt-audit"
    case transactionMonitor = "mrt-monitor"
    case namespace, nsup, particle, partition, proto, proxy
    case proxyDivert = "proxy-divert"
    case query, record, roster, rw
    case rwClient = "rw-client"
    case security, service
    case serviceList = "service-list"
    case sindex, skew, smd, storage, truncate, tsvc, udf, xdr
    case xdrClient = "xdr-client"
    case masking
}

/// How much a line matters; less comes first.
package enum LogLevel: UInt8, CaseIterable, Comparable, Sendable {
    case detail, debug, info, warning, critical

    /// As written in the log and in `log/<id>`.
    package var name: String {
        switch self {
        case .detail: "DETAIL"
        case .debug: "DEBUG"
        case .info: "INFO"
        case .warning: "WARNING"
        case .critical: "CRITICAL"
        }
    }

    /// Reads a name in any case; nil if it is none.
    package init?(name: String) {
        guard let level = LogLevel.allCases.first(where: { $0.name == name.uppercased() }) else { return nil }
        self = level
    }

    package static func < (left: LogLevel, right: LogLevel) -> Bool { left.rawValue < right.rawValue }
}

/// One place lines go to, as configured.
package struct LogSinkSettings: Sendable, Equatable {
    /// Where to.
    package enum Target: Sendable, Equatable {
        case console
        case file(String)
    }
    package var target: Target
    /// In the order written; later ones win; nil is every context.
    package var levels: [Rule]

    /// A level for one context or for all.
    package struct Rule: Sendable, Equatable {
        package var context: LogContext?
        package var level: LogLevel
        package init(context: LogContext?, level: LogLevel) {
            self.context = context
            self.level = level
        }
    }

    package init(target: Target, levels: [Rule]) {
        self.target = target
        self.levels = levels
    }
}
