// One simulated machine: its clocks, its disk, its configuration, and the process that runs on it, if one does.
package import Assembly
package import Base
package import Fabric

/// What one machine is. The world changes it; checkers and logs read it.
package struct SimulatedNode {
    package let number: Int
    package let id: NodeID
    package let host: String
    /// As the next start finds it. Namespaces in `absent` are commented out.
    package internal(set) var namespaces: [SimulatedNamespace]
    package internal(set) var absent: [String] = []
    var clock: NodeClock
    var disk = SimulatedDisk()

    // ---- The process ----
    var process: (any SimulatedProcess)?
    /// Counts the starts.
    package internal(set) var run = 0
    package internal(set) var incarnation: UInt64 = 0
    var random: SeededRandom
    /// Virtual time for which a timer is planned.
    var armed: UInt64?
    var inbox: [ClusterEvent] = []
    package internal(set) var isPaused = false
    /// It stays as it is until the end of the run.
    var isOutside = false
    /// Nobody answers for the machine: it lost its power.
    var isDark = false
    package internal(set) var isLeaving = false
    var acceptedStreams: UInt64 = 0
    var nextToken: UInt64 = 0
    /// Connections by channel and stream; only looked up, never walked.
    var streams: (heartbeat: [StreamID: Int], fabric: [StreamID: Int]) = ([:], [:])
    /// What every reactor goes by.
    package internal(set) var effective: ClusterSnapshot?
    /// What was published and not yet taken up by every reactor.
    package internal(set) var pending: [ClusterSnapshot] = []
    var lastPublished: UInt64 = 0

    package var isUp: Bool { process != nil }
    package var member: Member { Member(id: id, incarnation: incarnation) }
    /// What the process wants clients to be served by.
    package var latest: ClusterSnapshot? { pending.last ?? effective }
    package var phase: ClusterPhase { latest?.phase ?? .orphan }
    /// `n1`
    package var name: String { "n\(number + 1)" }

    /// Namespaces as the next start configures them.
    package var configured: [SimulatedNamespace] { namespaces.filter { !absent.contains($0.name) } }

    /// The process is gone. If the machine was suspended, it goes on.
    mutating func end(at virtual: UInt64) {
        clock.goesOn(at: virtual)
        process = nil
        armed = nil
        inbox = []
        isPaused = false
        isLeaving = false
        streams = ([:], [:])
        effective = nil
        pending = []
    }
}
