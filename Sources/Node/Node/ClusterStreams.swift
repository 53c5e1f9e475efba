// The streams of one plane (heartbeat or fabric) between nodes. Invariants:
// 1. A stream has a socket from `connect` or `accept` until `close`; after that no event names it.
// 2. What is not sent yet of a stream is at most `unsentMax` bytes, or the stream is closed.
// 3. Events are collected in `events`, never handed over from within a call.
// 4. No stream is to be given up before `nextDeadline`; at that time perhaps none either: the one meant may be connected.
internal import Base
internal import CReactor
internal import Fabric
internal import Files
internal import Glibc
internal import Reactor

/// One connection.
private final class NodeStream {
    let id: StreamID
    let descriptor: Int32
    var isConnected: Bool
    /// When dialling is given up.
    var deadline: Instant?
    var unsent: [UInt8] = []
    /// How much of `unsent` has left.
    var sent = 0
    var isWriteWatched: Bool

    init(_ id: StreamID, _ descriptor: Int32, isConnected: Bool, deadline: Instant?) {
        self.id = id
        self.descriptor = descriptor
        self.isConnected = isConnected
        self.deadline = deadline
        isWriteWatched = !isConnected
    }
}

/// See the invariants above. The cluster's thread only.
final class ClusterStreams {
    private static let unsentMax = 64 << 20
    private static let readSize = 64 << 10
    private static let readsPerTurn = 16
    private static let acceptedMax = 4096
    /// After descriptors ran out nobody is accepted for this long.
    private static let pauseMilliseconds: UInt64 = 100
    /// What happened, in order; the owner empties it.
    var events: [StreamEvent] = []
    private let epoll: Int32
    /// In the upper bits of tokens: tells planes apart.
    private let tag: UInt64
    private let listeners: [Listener]
    private var streams: [UInt64: NodeStream] = [:]
    private var tokens: [StreamID: UInt64] = [:]
    private var nextToken: UInt64 = 0
    private var nextAccepted: UInt64 = 0
    private var acceptedCount = 0
    private var pausedUntil: Instant?
    /// The earliest deadline of all streams, or earlier; nil if none has one.
    private var nextDeadline: Instant?
    private let buffer = UnsafeMutableRawPointer.allocate(byteCount: ClusterStreams.readSize, alignment: 64)
    private let warn: (String) -> Void

    /// Watches the listeners from now on. `tag` is shifted by 56 bits into the tokens of its descriptors.
    init(_ listeners: [Listener], epoll: Int32, tag: UInt8, warn: @escaping (String) -> Void) {
        self.listeners = listeners
        self.epoll = epoll
        self.tag = UInt64(tag) << 56
        self.warn = warn
        for (number, listener) in listeners.enumerated() {
            apus_epoll_add(epoll, listener.rawDescriptor, UInt32(APUS_READABLE), self.tag | UInt64(number))
        }
        nextToken = UInt64(listeners.count)
    }

    deinit {
        for stream in streams.values { Glibc.close(stream.descriptor) }
        for listener in listeners { Glibc.close(listener.rawDescriptor) }
        buffer.deallocate()
    }

    /// Whether the token is one of this plane's.
    func owns(_ token: UInt64) -> Bool { token & 0xFF << 56 == tag }

    // ---- Effects ----

    /// Does what a machine wants.
    func perform(_ effect: StreamEffect, now: Instant) {
        switch effect {
        case .connect(let id, let address, let timeout): connect(id, address, now.advanced(byMilliseconds: timeout))
        case .send(let id, let bytes): send(id, bytes)
        case .close(let id):
            if let token = tokens[id] { remove(token) }
        }
    }

    private func connect(_ id: StreamID, _ address: Address, _ deadline: Instant) {
        let descriptor = apus_connect_begin(address.host, address.port)
        guard descriptor >= 0 else {
            return events.append(.closed(id, reason: "\(address): \(errnoText())"))
        }
        add(NodeStream(id, descriptor, isConnected: false, deadline: deadline))
    }

    private func add(_ stream: NodeStream) {
        let token = tag | nextToken
        nextToken += 1
        streams[token] = stream
        tokens[stream.id] = token
        if let deadline = stream.deadline { nextDeadline = min(nextDeadline ?? deadline, deadline) }
        let flags = stream.isConnected ? UInt32(APUS_READABLE) : UInt32(APUS_WRITABLE)
        apus_epoll_add(epoll, stream.descriptor, flags, token)
    }

    private func send(_ id: StreamID, _ bytes: [UInt8]) {
        guard let token = tokens[id], let stream = streams[token] else { return }
        stream.unsent += bytes
        guard stream.unsent.count - stream.sent <= ClusterStreams.unsentMax else {
            return drop(token, "its other end does not read: \(ClusterStreams.unsentMax >> 20) MiB are unsent")
        }
        if stream.isConnected, !stream.isWriteWatched { flush(token, stream) }
    }

    private func flush(_ token: UInt64, _ stream: NodeStream) {
        while stream.sent < stream.unsent.count {
            let count = stream.unsent.withUnsafeBytes {
                Glibc.send(
                    stream.descriptor, $0.baseAddress! + stream.sent, $0.count - stream.sent,
                    Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            }
            if count > 0 {
                stream.sent += count
                continue
            }
            if count < 0, errno == EINTR { continue }
            guard count < 0, errno == EAGAIN else { return drop(token, errnoText()) }
            break
        }
        let isDone = stream.sent == stream.unsent.count
        if isDone {
            stream.unsent.removeAll(keepingCapacity: stream.unsent.count <= ClusterStreams.readSize)
            stream.sent = 0
        } else if stream.sent > 1 << 20 {
            stream.unsent.removeFirst(stream.sent)
            stream.sent = 0
        }
        guard stream.isWriteWatched == isDone else { return }
        stream.isWriteWatched = !isDone
        let flags = UInt32(APUS_READABLE) | (isDone ? 0 : UInt32(APUS_WRITABLE))
        apus_epoll_change(epoll, stream.descriptor, flags, token)
    }

    private func remove(_ token: UInt64) {
        guard let stream = streams.removeValue(forKey: token) else { return }
        tokens[stream.id] = nil
        if stream.id.isAccepted { acceptedCount -= 1 }
        Glibc.close(stream.descriptor)
    }

    /// The stream is gone without having been closed by the machine.
    private func drop(_ token: UInt64, _ reason: String) {
        guard let stream = streams[token] else { return }
        remove(token)
        events.append(.closed(stream.id, reason: reason))
    }

    // ---- Descriptors ----

    /// Something happened to the descriptor behind a token of this plane.
    func ready(_ token: UInt64, _ flags: UInt32, now: Instant) {
        let number = token & ~(0xFF << 56)
        if number < UInt64(listeners.count) { return accept(listeners[Int(number)], now) }
        guard let stream = streams[token] else { return }
        if !stream.isConnected {
            guard finishConnect(token, stream) else { return }
        } else if flags & UInt32(APUS_WRITABLE) != 0 {
            flush(token, stream)
        }
        if flags & (UInt32(APUS_READABLE) | UInt32(APUS_BROKEN)) != 0 { receive(token, stream) }
    }

    private func finishConnect(_ token: UInt64, _ stream: NodeStream) -> Bool {
        let reason = apus_socket_error(stream.descriptor)
        guard reason == 0 else {
            drop(token, errnoText(reason))
            return false
        }
        stream.isConnected = true
        stream.deadline = nil
        events.append(.connected(stream.id))
        flush(token, stream)
        // Nothing was waiting: it is watched for writing still.
        if streams[token] != nil, stream.isWriteWatched, stream.unsent.isEmpty {
            stream.isWriteWatched = false
            apus_epoll_change(epoll, stream.descriptor, UInt32(APUS_READABLE), token)
        }
        return true
    }

    private func receive(_ token: UInt64, _ stream: NodeStream) {
        for _ in 0..<ClusterStreams.readsPerTurn {
            guard streams[token] != nil else { return }
            let count = recv(stream.descriptor, buffer, ClusterStreams.readSize, Int32(MSG_DONTWAIT))
            if count == 0 { return drop(token, "closed by its other end") }
            if count < 0 {
                if errno == EINTR { continue }
                if errno != EAGAIN { drop(token, errnoText()) }
                return
            }
            events.append(.received(stream.id, [UInt8](UnsafeRawBufferPointer(start: buffer, count: count))))
            if count < ClusterStreams.readSize { return }
        }
    }

    private func accept(_ listener: Listener, _ now: Instant) {
        while true {
            let descriptor = apus_accept(listener.rawDescriptor)
            guard descriptor >= 0 else {
                if errno == EINTR || errno == ECONNABORTED { continue }
                if errno != EAGAIN { pause(errnoText(), now) }
                return
            }
            guard acceptedCount < ClusterStreams.acceptedMax else {
                Glibc.close(descriptor)
                continue
            }
            apus_socket_prepare(descriptor)
            var text = [CChar](repeating: 0, count: 64)
            let port = apus_peer(descriptor, &text)
            nextAccepted += 1
            acceptedCount += 1
            let id = StreamID.accepted(nextAccepted)
            add(NodeStream(id, descriptor, isConnected: true, deadline: nil))
            events.append(.accepted(id, from: Address(host: addressText(text), port: port)))
        }
    }

    // ---- Time ----

    /// Before it `timePassed` has nothing to do; nil for never.
    var deadline: Instant? {
        guard let nextDeadline, let pausedUntil else { return nextDeadline ?? pausedUntil }
        return min(nextDeadline, pausedUntil)
    }

    /// Gives up dialling what takes too long; accepts again after a pause.
    func timePassed(_ now: Instant) {
        if let next = nextDeadline, next <= now {
            for (token, stream) in streams where stream.deadline.map({ $0 <= now }) ?? false {
                drop(token, "no answer in time")
            }
            nextDeadline = streams.values.compactMap(\.deadline).min()
        }
        if let until = pausedUntil, until <= now {
            pausedUntil = nil
            watchListeners(UInt32(APUS_READABLE))
        }
    }

    private func pause(_ reason: String, _ now: Instant) {
        warn("cannot accept a connection of another node: \(reason)")
        pausedUntil = now.advanced(byMilliseconds: ClusterStreams.pauseMilliseconds)
        watchListeners(0)
    }

    private func watchListeners(_ flags: UInt32) {
        for (number, listener) in listeners.enumerated() {
            apus_epoll_change(epoll, listener.rawDescriptor, flags, tag | UInt64(number))
        }
    }
}
