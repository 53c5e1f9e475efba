// New connections: accepted on one reactor, each handed to the reactor that has the fewest, where it stays.
internal import Base
internal import CReactor
internal import Glibc

/// The listeners, and the reactors that share their connections. On the thread of the reactor that accepts.
struct Acceptor {
    /// Kind of the letter that brings a socket: payload the descriptor, argument the kind of connection.
    static let letterKind: UInt32 = 0xACCE97
    /// Connections accepted per event: the others wait a turn.
    static let batch = 64
    let listeners: [Listener]
    let reactors: [Reactor]
    /// Given up for a moment when descriptors run out, so that a connection can be taken off the queue and
    /// closed.
    var spareDescriptor = open("/dev/null", O_RDONLY | O_CLOEXEC)
    var lastComplaint = Instant(nanoseconds: 0)
    /// The listeners are not asked for connections until the next sweep.
    var isPaused = false

    /// Connections of one kind, of all reactors.
    func total(_ kind: UInt8) -> Int { reactors.reduce(0) { $0 + $1.gauges.load(kind) } }
}

extension Reactor {
    /// Lets the first of `reactors` accept for all of them. Before they start.
    package static func connect(_ reactors: [Reactor], listeners: [Listener]) {
        guard let first = reactors.first else { return }
        for (number, listener) in listeners.enumerated() {
            apus_epoll_add(
                first.epoll, listener.descriptor, UInt32(APUS_READABLE), listenerToken + UInt64(number))
        }
        first.acceptor = Acceptor(listeners: listeners, reactors: reactors)
    }

    func acceptConnections(listener number: Int) {
        guard let acceptor, number < acceptor.listeners.count else { return }
        let listener = acceptor.listeners[number]
        for _ in 0..<Acceptor.batch {
            let descriptor = apus_accept(listener.descriptor)
            if descriptor < 0 {
                if errno == ECONNABORTED || errno == EINTR { continue }
                switch errno {
                case EMFILE, ENFILE: turnAway(listener)
                case ENOBUFS, ENOMEM: pauseAccepting(true)
                default: break
                }
                return
            }
            let most = settings.connectionsMax[Int(listener.kind)]
            guard acceptor.total(listener.kind) < most else {
                close(descriptor)
                gauges.refused()
                complain("\(most) connections are open on port \(listener.port): new ones are closed at once")
                continue
            }
            handOver(descriptor, listener.kind, acceptor.reactors)
        }
    }

    private func handOver(_ descriptor: Int32, _ kind: UInt8, _ reactors: [Reactor]) {
        let least = reactors.min { $0.gauges.load < $1.gauges.load } ?? self
        least.gauges.assigned(kind)
        if least === self { return adopt(descriptor: descriptor, kind: kind) }
        let letter = UnsafeMutablePointer<Letter>.allocate(capacity: 1)
        letter.initialize(
            to: Letter(kind: Acceptor.letterKind, argument: UInt32(kind), payload: UInt64(UInt32(bitPattern: descriptor))))
        least.mailbox.post(letter)
    }

    /// No descriptor is left: takes one connection off the queue with the spare one, so that the queue cannot
    /// spin.
    private func turnAway(_ listener: Listener) {
        guard var acceptor else { return }
        guard acceptor.spareDescriptor >= 0 else { return pauseAccepting(true) }
        close(acceptor.spareDescriptor)
        let descriptor = apus_accept(listener.descriptor)
        if descriptor >= 0 {
            close(descriptor)
            gauges.refused()
        }
        acceptor.spareDescriptor = open("/dev/null", O_RDONLY | O_CLOEXEC)
        self.acceptor = acceptor
        complain("no file descriptor is left: new connections are closed at once; raise the limit (ulimit -n)")
    }

    /// Level-triggered listeners that cannot be served would spin: they rest until the next sweep.
    func pauseAccepting(_ isPaused: Bool) {
        guard var acceptor, acceptor.isPaused != isPaused else { return }
        acceptor.isPaused = isPaused
        if !isPaused, acceptor.spareDescriptor < 0 {
            acceptor.spareDescriptor = open("/dev/null", O_RDONLY | O_CLOEXEC)
        }
        for (number, listener) in acceptor.listeners.enumerated() {
            apus_epoll_change(
                epoll, listener.descriptor, isPaused ? 0 : UInt32(APUS_READABLE),
                Reactor.listenerToken + UInt64(number))
        }
        self.acceptor = acceptor
        if isPaused { complain("connections cannot be accepted for want of memory or files: trying again in a second") }
    }

    /// At most one line a second.
    private func complain(_ message: String) {
        guard var acceptor, now.monotonic.nanoseconds(since: acceptor.lastComplaint) > 1_000_000_000 else { return }
        acceptor.lastComplaint = now.monotonic
        self.acceptor = acceptor
        settings.log(message)
    }

    func stopAccepting() {
        guard let acceptor else { return }
        for listener in acceptor.listeners { close(listener.descriptor) }
        close(acceptor.spareDescriptor)
        self.acceptor = nil
    }
}
