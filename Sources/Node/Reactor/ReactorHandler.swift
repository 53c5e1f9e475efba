package import Base

/// What a reactor drives. Every call comes on the reactor's thread.
package protocol ReactorHandler: AnyObject {
    /// The reactor's thread has begun; once, before anything else.
    func threadBegan()
    /// A turn begins; both clocks as just read.
    func turnBegan(_ time: TurnTime)
    /// `bytes` begin at a frame. Consumes whole frames and appends their answers to `output`.
    func receive(
        _ connection: ConnectionID, kind: UInt8, _ bytes: UnsafeRawBufferPointer, _ output: OutputBuffer
    ) -> Reception
    /// These bytes of a connection will come to `receive` in this turn, after those of other connections: a chance to fetch
    /// what they will touch. `place` tells the up to `Limits.connectionsReceivedAheadMax` connections apart.
    func preview(_ bytes: UnsafeRawBufferPointer, place: Int)
    /// The next stage (1, 2) for what was previewed as `place`.
    func prefetch(place: Int, stage: Int)
    /// A letter from another thread; its memory is the handler's now.
    func letter(_ letter: UnsafeMutablePointer<Letter>)
    /// About every 10 ms while `Reactor.wantsTicks`, else about once a second.
    func tick(_ time: TurnTime)
    /// A slice of background work of about 50 us. Returns for how many times its duration the requests come first if
    /// there are any (9: it gets a tenth of the time); nil if there is nothing to do.
    func backgroundSlice() -> UInt64?
    /// A suspended connection's client has taken all that was streamed to it.
    func connectionDrained(_ connection: ConnectionID)
    /// Whether the answer that a suspended connection waits for comes in parts.
    func isStreaming(_ connection: ConnectionID) -> Bool
    /// The connection is gone.
    func connectionClosed(_ connection: ConnectionID)
    /// A turn ends; `sleeping` if the reactor now waits for events.
    func turnEnded(sleeping: Bool)
}

/// What the handler made of a connection's bytes.
package struct Reception: BitwiseCopyable {
    /// What next.
    package enum Next: BitwiseCopyable {
        /// Not before there are so many bytes from the frame's start on.
        case needBytes(atLeast: Int)
        /// The turn's share is used up and frames are left.
        case more
        /// An answer is outstanding: not before `Reactor.resume`.
        case suspended
        /// Close when the answers are out.
        case close
    }
    /// Bytes of whole frames that were executed.
    package var consumed: Int
    package var next: Next

    package init(consumed: Int, next: Next) {
        self.consumed = consumed
        self.next = next
    }
}

/// How a reactor behaves.
package struct ReactorSettings {
    /// Processor to pin to, nil for none.
    package var pin: Int?
    /// Idle connections are closed after this; 0 for never.
    package var idleMilliseconds: UInt64
    /// Connections over all reactors, by kind of listener.
    package var connectionsMax: [Int]
    /// Where trouble is reported.
    package var log: @Sendable (String) -> Void

    package init(
        pin: Int?, idleMilliseconds: UInt64, connectionsMax: [Int], log: @escaping @Sendable (String) -> Void
    ) {
        self.pin = pin
        self.idleMilliseconds = idleMilliseconds
        self.connectionsMax = connectionsMax
        self.log = log
    }
}

/// Figures of one reactor; a snapshot.
package struct ReactorCounters: Sendable {
    /// Open connections by kind of listener.
    package var connections = [0, 0]
    package var opened: UInt64 = 0
    package var closed: UInt64 = 0
    /// Closed for idleness or because they did not read.
    package var reaped: UInt64 = 0
    /// Turned away at the limit.
    package var refused: UInt64 = 0
    package var busyNanoseconds: UInt64 = 0
    package var turns: UInt64 = 0
}
