// The seam between the machines of the cluster and whoever moves their bytes: the shell of a real node, or the simulator.
// Invariants:
// 1. A stream has one name for ever. Dialled ones are named by the machine, accepted ones by the shell (`isAccepted`).
// 2. Bytes of a stream arrive in the order they were sent, cut into any pieces; after `closed` nothing more comes of it.
// 3. What was sent and not received when a stream is cut is lost, without notice of how much.

/// The name of one connection.
package struct StreamID: Hashable, Comparable, Sendable, BitwiseCopyable, CustomStringConvertible {
    package let rawValue: UInt64
    private static let acceptedBit: UInt64 = 1 << 63

    private init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The `number`th stream that the machine dials.
    package static func dialled(_ number: UInt64) -> StreamID { StreamID(rawValue: number) }
    /// The `number`th stream that the shell accepts.
    package static func accepted(_ number: UInt64) -> StreamID { StreamID(rawValue: number | acceptedBit) }

    package var isAccepted: Bool { rawValue & StreamID.acceptedBit != 0 }

    package static func < (left: StreamID, right: StreamID) -> Bool { left.rawValue < right.rawValue }

    package var description: String { (isAccepted ? "in" : "out") + "-\(rawValue & ~StreamID.acceptedBit)" }
}

/// What happens to streams.
package enum StreamEvent: Sendable {
    /// Somebody has connected, from there.
    case accepted(StreamID, from: Address)
    /// A dialled stream stands.
    case connected(StreamID)
    case received(StreamID, [UInt8])
    /// It is gone: never stood, was cut, or its other end closed it. `reason` is for the log. Not reported for what the
    /// machine closed itself.
    case closed(StreamID, reason: String)
}

/// What a machine wants done with streams.
package enum StreamEffect: Sendable {
    /// Ends in `connected` or `closed`.
    case connect(StreamID, to: Address, timeoutMilliseconds: UInt64)
    /// Whole frames. A shell that holds more than 64 MiB of a stream unsent closes it.
    case send(StreamID, [UInt8])
    case close(StreamID)
}

/// How much a line of the log matters.
package enum ClusterLogLevel: Sendable { case info, warning }

/// A line for the log. `context` is a word of the field: hb, fabric, clustering, exchange, partition, smd.
package struct ClusterLogLine: Sendable, Equatable {
    package let level: ClusterLogLevel
    package let context: ClusterLogContext
    package let text: String

    package init(_ level: ClusterLogLevel, _ context: ClusterLogContext, _ text: String) {
        self.level = level
        self.context = context
        self.text = text
    }
}

/// The contexts of the log that the cluster writes to.
package enum ClusterLogContext: String, Sendable { case hb, fabric, clustering, exchange, partition, smd }
