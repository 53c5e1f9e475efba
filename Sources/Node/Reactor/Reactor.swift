// One event loop on one thread: sockets by level-triggered epoll, letters by mailbox, ticks, background work.
// Invariants:
// 1. Everything but `mailbox`, `counters`, `load`, `stop` and `join` is the reactor's thread only.
// 2. The shared output buffer is empty between handler calls: what a call leaves in it goes to that call's
//    connection at once.
// 3. A connection in the table is open, registered with epoll, and counted in `load`; a closed slot has a new
//    generation.
// 4. Bytes of one connection are handed to the handler in order, and not while it is suspended, closing or
//    not reading.
package import Base
internal import CBase
internal import CReactor
internal import Glibc

/// An event loop, see the invariants above.
package final class Reactor: @unchecked Sendable {
    /// Letters to this reactor. Any thread posts.
    package let mailbox: Mailbox
    /// Ticks every 10 ms in place of every second. Reactor's thread.
    package var wantsTicks = false {
        didSet {
            guard wantsTicks else { return }
            nextTick = min(nextTick, now.monotonic.advanced(byMilliseconds: Reactor.tickMilliseconds))
        }
    }
    let index: Int
    let handler: any ReactorHandler
    private(set) var settings: ReactorSettings
    let output = OutputBuffer(capacity: 256 << 10)
    let table = ConnectionTable()
    let gauges = ReactorGauges()
    let epoll: Int32
    let receiveBuffer: UnsafeMutableRawBufferPointer
    let batch: UnsafeMutablePointer<ReceivedAhead>
    var acceptor: Acceptor?
    var ready: [ConnectionID] = []
    var now = SystemClock.now()
    private let wake: Int32
    private let events: UnsafeMutablePointer<epoll_event>
    private var thread = pthread_t()
    private var nextTick = Instant(nanoseconds: 0)
    private var nextSweep = Instant(nanoseconds: 0)
    private var nextBackground = Instant(nanoseconds: 0)
    private var hasBackground = false
    private var isIdle = true
    private var stopDeadline: Instant?

    static let eventsMax = 256
    /// Bytes of one connection received at a time.
    static let receiveSize = 64 << 10
    static let tickMilliseconds: UInt64 = 10
    static let sweepMilliseconds: UInt64 = 1000
    static let stopMilliseconds: UInt64 = 3000
    /// Tokens that are no connection: generations start at 1, so these cannot be one.
    static let wakeToken: UInt64 = 0
    static let listenerToken: UInt64 = 1

    /// Prepares the loop; nothing runs before `start`.
    package init(index: Int, handler: any ReactorHandler, settings: ReactorSettings) {
        self.index = index
        self.handler = handler
        self.settings = settings
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        let wake = apus_eventfd()
        precondition(epoll >= 0 && wake >= 0, "no file descriptors left for a reactor")
        self.wake = wake
        mailbox = Mailbox { _ = eventfd_write(wake, 1) }
        events = .allocate(capacity: Reactor.eventsMax)
        receiveBuffer = .allocate(byteCount: Reactor.receiveSize * (1 + Limits.connectionsReceivedAheadMax), alignment: 4096)
        batch = .allocate(capacity: Limits.connectionsReceivedAheadMax)
        // Each write to it is an event, so nobody has to read it.
        apus_epoll_add(epoll, wake, UInt32(APUS_READABLE) | UInt32(APUS_EDGE), Reactor.wakeToken)
    }

    deinit {
        close(epoll)
        close(wake)
        events.deallocate()
        receiveBuffer.deallocate()
        batch.deallocate()
    }

    // ---- From other threads ----

    /// Starts the thread. Once.
    package func start() {
        let reason = startThread(&thread) { [self] in run() }
        precondition(reason == 0, "no thread for a reactor: \(String(cString: strerror(reason)))")
    }

    /// Asks the loop to end: no new connections, what was received is answered, then connections close. Any
    /// thread.
    package func stop() {
        gauges.askToStop()
        _ = eventfd_write(wake, 1)
    }

    /// Has a turn begin soon, also if the loop sleeps. Any thread.
    package func wakeUp() { _ = eventfd_write(wake, 1) }

    /// An eventfd that does the same when it is signalled. Any thread; the reactor's own.
    package var wakeDescriptor: Int32 { wake }

    /// Waits for the loop's end. Once, after `stop`.
    package func join() { pthread_join(thread, nil) }

    /// A snapshot. Any thread.
    package var counters: ReactorCounters { gauges.snapshot() }

    /// Other limits of connections from now on. Reactor's thread.
    package func change(idleMilliseconds: UInt64, connectionsMax: [Int]) {
        settings.idleMilliseconds = idleMilliseconds
        settings.connectionsMax = connectionsMax
    }

    // ---- The loop ----

    private func run() {
        apus_name_thread("reactor-\(index)")
        apus_prefer_latency()
        if let pin = settings.pin {
            let reason = apus_pin_thread(Int32(pin))
            if reason != 0 {
                settings.log("reactor \(index) cannot be pinned to processor \(pin): \(String(cString: strerror(reason)))")
            }
        }
        handler.threadBegan()
        beginTurn()
        while !isFinished {
            turn(eventCount: wait())
        }
        table.forEachOpen { closeConnection($0) }
        handler.turnEnded(sleeping: true)
    }

    /// Waits for events, not at all if there is work at hand.
    private func wait() -> Int32 {
        var timeout: Int32 = 0
        let canSleep = !runBackground() && ready.isEmpty && mailbox.prepareToSleep()
        // First: the handler may ask for ticks.
        handler.turnEnded(sleeping: canSleep)
        if canSleep {
            let due = wantsTicks || stopDeadline != nil ? nextTick : min(nextSweep, nextTick)
            let left = due.nanoseconds(since: SystemClock.monotonic())
            timeout = Int32(min(left / 1_000_000 + 1, Reactor.sweepMilliseconds))
        }
        if timeout > 0 { gauges.busy(now.monotonic, until: SystemClock.monotonic()) }
        let count = epoll_wait(epoll, events, Int32(Reactor.eventsMax), timeout)
        mailbox.woke()
        beginTurn()
        return max(count, 0)
    }

    private func beginTurn() {
        now = SystemClock.now()
        gauges.turnBegan()
        handler.turnBegan(now)
    }

    private func turn(eventCount: Int32) {
        mailbox.take { receive(letter: $0) }
        var batched = 0
        for number in 0..<Int(eventCount) {
            let token = apus_event_token(events + number)
            let flags = apus_event_flags(events + number)
            if token >> 32 != 0, flags == UInt32(APUS_READABLE) {
                if receiveAhead(ConnectionID(rawValue: token), place: batched) { batched += 1 }
                if batched == Limits.connectionsReceivedAheadMax { executeBatch(&batched) }
            } else {
                dispatch(token, flags)
            }
        }
        executeBatch(&batched)
        serveReady()
        if now.monotonic >= nextTick || now.monotonic >= nextSweep { tick() }
        isIdle = eventCount == 0 && ready.isEmpty
    }

    private func dispatch(_ token: UInt64, _ flags: UInt32) {
        switch token {
        case Reactor.wakeToken: break
        case let token where token >> 32 == 0: acceptConnections(listener: Int(token - Reactor.listenerToken))
        default: serve(ConnectionID(rawValue: token), flags)
        }
    }

    private func receive(letter: UnsafeMutablePointer<Letter>) {
        guard letter.pointee.kind == Acceptor.letterKind else { return handler.letter(letter) }
        adopt(descriptor: Int32(truncatingIfNeeded: letter.pointee.payload), kind: UInt8(letter.pointee.argument))
        letter.deallocate()
    }

    private func tick() {
        nextTick = now.monotonic.advanced(
            byMilliseconds: wantsTicks || stopDeadline != nil ? Reactor.tickMilliseconds : Reactor.sweepMilliseconds)
        handler.tick(now)
        if now.monotonic >= nextSweep {
            nextSweep = now.monotonic.advanced(byMilliseconds: Reactor.sweepMilliseconds)
            sweep()
        }
    }

    /// There is background work to do: a slice of it comes in this turn or the next. Reactor's thread.
    package func wantsBackground() {
        guard !hasBackground else { return }
        hasBackground = true
        nextBackground = min(nextBackground, now.monotonic)
    }

    /// A slice of background work: back to back while nothing else is to do, else for its share of the time.
    /// True: more is left.
    private func runBackground() -> Bool {
        guard isIdle || now.monotonic >= nextBackground else { return hasBackground }
        let begun = SystemClock.monotonic()
        let pause = handler.backgroundSlice()
        hasBackground = pause != nil
        if let pause {
            let ended = SystemClock.monotonic()
            nextBackground = Instant(nanoseconds: ended.nanoseconds + pause * ended.nanoseconds(since: begun))
        } else {
            // Looking for work is work.
            nextBackground = begun.advanced(byMilliseconds: 1)
        }
        return hasBackground
    }

    // ---- The end ----

    /// True when a stop was asked for and nothing is left to answer, or the time for it is up.
    private var isFinished: Bool {
        guard gauges.isStopAsked else { return false }
        guard let deadline = stopDeadline else {
            stopDeadline = now.monotonic.advanced(byMilliseconds: Reactor.stopMilliseconds)
            nextTick = now.monotonic
            stopAccepting()
            receiveLastBytes()
            return table.openCount == 0
        }
        return table.openCount == 0 || now.monotonic > deadline
    }

    /// What has reached the sockets is executed; then every connection closes as soon as its answers are out.
    private func receiveLastBytes() {
        table.forEachOpen { id in
            serve(id, UInt32(APUS_READABLE))
            guard let connection = table[id] else { return }
            connection.pointee.isClosing = true
            closeIfDone(id, connection)
        }
    }
}
