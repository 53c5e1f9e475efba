// What goes into the heartbeat machine and what comes out of it.
package import Base
package import Fabric

/// How pulses travel. One mode in a cluster.
package enum HeartbeatMode: Sendable, Equatable { case mesh, multicast }

/// An address as the configuration or an operator writes it: a name or a number, and a port.
package struct SeedName: Hashable, Sendable, CustomStringConvertible {
    package let host: String
    package let port: UInt16

    package init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// The numbers that may change while the node runs.
package struct HeartbeatTunables: Sendable, Equatable {
    /// Between two pulses.
    package var intervalMilliseconds: UInt64
    /// Silent for so many intervals: departed.
    package var timeoutIntervals: UInt64
    package var connectTimeoutMilliseconds: UInt64
    /// Largest datagram in bytes (multicast).
    package var datagramSizeMax: Int

    package init(
        intervalMilliseconds: UInt64 = 150, timeoutIntervals: UInt64 = 10, connectTimeoutMilliseconds: UInt64 = 500,
        datagramSizeMax: Int = 1400
    ) {
        // An hour and a day are more than any cluster wants, and their product in nanoseconds fits.
        self.intervalMilliseconds = min(max(intervalMilliseconds, 1), 3_600_000)
        self.timeoutIntervals = min(max(timeoutIntervals, 1), 86_400)
        self.connectTimeoutMilliseconds = connectTimeoutMilliseconds
        self.datagramSizeMax = datagramSizeMax
    }

    package var timeoutMilliseconds: UInt64 { intervalMilliseconds &* timeoutIntervals }
}

/// What the machine is started with.
package struct HeartbeatSettings: Sendable {
    package var mode: HeartbeatMode
    package var tunables: HeartbeatTunables
    /// Nodes of another name are foreign. Empty is a name, too.
    package var clusterName: String
    /// As written; each is looked up at each try.
    package var seeds: [SeedName]
    /// Where others are told to dial.
    package var addresses: NodeAddresses

    package init(
        mode: HeartbeatMode = .mesh, tunables: HeartbeatTunables = HeartbeatTunables(), clusterName: String = "",
        seeds: [SeedName] = [], addresses: NodeAddresses
    ) {
        self.mode = mode
        self.tunables = tunables
        self.clusterName = clusterName
        self.seeds = seeds
        self.addresses = addresses
    }
}

/// What happens to the heartbeat machine.
package enum HeartbeatEvent: Sendable {
    /// The time of `deadline` has come.
    case timer
    /// Of the heartbeat port.
    case stream(StreamEvent)
    case datagram([UInt8], from: Address)
    /// Answers `resolve`.
    case resolved(SeedName, [Address])
    /// Fabric traffic of this member came.
    case evidence(Member)
    /// What pulses say of this node from now on.
    case content(PulseContent)
    case settings(HeartbeatTunables)
    case tip(SeedName)
    /// None: all tipped ones.
    case tipClear([SeedName])
    /// The node stops now: the others need not wait for the timeout. Nothing is sent after that.
    case goodbye
}

/// What the heartbeat machine wants done.
package enum HeartbeatEffect: Sendable {
    case stream(StreamEffect)
    /// To every multicast group.
    case multicast([UInt8])
    case resolve(SeedName)
    /// Answers `tip` or `tipClear` in the same step: `ok`, or `ERROR:code:sentence`.
    case answered(String)
    case log(ClusterLogLine)
    /// `neighbours` differs in more than clocks. At most once a step, last.
    case neighboursChanged
}

/// Counters since the start, and gauges.
package struct HeartbeatStatistics: Sendable, Equatable {
    /// Open now, both ways: `heartbeat_connections`.
    package var connections = 0
    package var connectionsOpened: UInt64 = 0
    package var connectionsClosed: UInt64 = 0
    /// `heartbeat_received_self`.
    package var receivedSelf: UInt64 = 0
    /// Another cluster, another format, or no heartbeat at all: `heartbeat_received_foreign`.
    package var receivedForeign: UInt64 = 0
    /// Of incarnations that are over.
    package var receivedRetired: UInt64 = 0
    package var pulsesSent: UInt64 = 0
    package var pulsesReceived: UInt64 = 0
    package var bytesSent: UInt64 = 0
    package var bytesReceived: UInt64 = 0
    package var arrivals: UInt64 = 0
    package var departures: UInt64 = 0
}

/// How far clocks are apart. Offsets are milliseconds of another clock minus this node's.
package struct HeartbeatClocks: Sendable, Equatable {
    /// The median of all clocks, this node's among them, minus this node's.
    package var medianOffset: Int64 = 0
    /// Largest distance of a clock from the median: `cluster_clock_skew_ms`.
    package var skewMilliseconds: UInt64 = 0
    /// Who is further off than was asked for.
    package var outliers: [NodeID] = []
}

/// Rules that tests switch off, to see that somebody notices.
package struct HeartbeatBreaks: OptionSet, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }

    /// A node is its id: a restart within the timeout goes unseen.
    package static let ignoresIncarnation = HeartbeatBreaks(rawValue: 1)
}
