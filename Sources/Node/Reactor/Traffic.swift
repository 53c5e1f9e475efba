// Bytes in, answers out: what one reactor does with one connection.
package import Base
internal import CReactor
internal import Glibc

extension Reactor {
    /// Above so many bytes that the peer has not taken, nothing more of its requests is read or executed.
    static let unsentMax = 1 << 20
    /// A peer that takes nothing for so long is closed.
    static let sendTimeoutNanoseconds: UInt64 = 10_000_000_000
    /// A peer that leaves a request unfinished for so long is closed.
    static let halfRequestTimeoutNanoseconds: UInt64 = 60_000_000_000
    private static let readable = UInt32(APUS_READABLE)
    private static let writable = UInt32(APUS_WRITABLE)
    private static let broken = UInt32(APUS_BROKEN)
    private static let peerHasClosed = UInt32(APUS_PEER_CLOSED)

    // ---- Events ----

    /// A connection's socket has something to say.
    func serve(_ id: ConnectionID, _ flags: UInt32) {
        guard let connection = table[id] else { return }
        if flags & Reactor.writable != 0 {
            guard sendPending(id, connection) else { return }
            if connection.pointee.output.isEmpty {
                if connection.pointee.isSuspended { handler.connectionDrained(id) }
                if let connection = table[id] { proceed(id, connection) }
            }
        }
        guard flags & (Reactor.readable | Reactor.broken | Reactor.peerHasClosed) != 0, table[id] != nil else { return }
        if isBlocked(connection) {
            // Level-triggered: what must wait is not asked for any more. A broken one cannot be waited for, and nobody reads
            // the long answer to one that has closed.
            if flags & (Reactor.broken | Reactor.peerHasClosed) != 0 { return closeConnection(id) }
            return updateEvents(id, connection)
        }
        readOnce(id, connection)
    }

    /// No byte of this connection is read or executed for now.
    private func isBlocked(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        connection.pointee.isSuspended || connection.pointee.isClosing || connection.pointee.isReady
            || connection.pointee.hasPeerClosed || connection.pointee.output.count > Reactor.unsentMax
    }

    private func readOnce(_ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>) {
        guard !connection.pointee.input.isEmpty else {
            let got = receive(id, connection, receiveBuffer.baseAddress!, Reactor.receiveSize)
            if got > 0 {
                let bytes = UnsafeRawBufferPointer(start: receiveBuffer.baseAddress!, count: got)
                execute(id, connection, bytes, isFresh: true)
            }
            return
        }
        // Grows with what has come, not with what a header claims.
        let room = min(max(connection.pointee.needed - connection.pointee.input.count, 16 << 10), 1 << 20)
        let got = receive(id, connection, connection.pointee.input.makeRoom(room), room)
        guard got > 0 else { return }
        connection.pointee.input.end += got
        guard connection.pointee.input.count >= connection.pointee.needed else { return }
        execute(id, connection, connection.pointee.input.bytes, isFresh: false)
    }

    /// Receives once. 0: nothing came, or the connection is closing or closed.
    private func receive(
        _ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>, _ target: UnsafeMutableRawPointer, _ room: Int
    ) -> Int {
        let got = recv(connection.pointee.descriptor, target, room, 0)
        if got > 0 {
            connection.pointee.lastActive = now.monotonic.nanoseconds
            return got
        }
        if got == 0 {
            peerClosed(id, connection)
        } else if errno != EAGAIN, errno != EINTR {
            closeConnection(id)
        }
        return 0
    }

    // ---- Batches: the system calls of some connections hide the memory latency of others ----

    /// Receives from a readable connection and has its first request's memory fetched. False: it is served, or there
    /// is nothing to serve.
    func receiveAhead(_ id: ConnectionID, place: Int) -> Bool {
        guard let connection = table[id] else { return false }
        guard !isBlocked(connection), connection.pointee.input.isEmpty else {
            serve(id, Reactor.readable)
            return false
        }
        let target = receiveBuffer.baseAddress! + (1 + place) * Reactor.receiveSize
        let got = receive(id, connection, target, Reactor.receiveSize)
        guard got > 0 else { return false }
        batch[place] = ReceivedAhead(id: id, bytes: UnsafeRawBufferPointer(start: target, count: got))
        handler.preview(batch[place].bytes, place: place)
        return true
    }

    /// Executes what has been received ahead.
    func executeBatch(_ count: inout Int) {
        if count > 1 {
            for stage in 1...2 {
                for place in 0..<count { handler.prefetch(place: place, stage: stage) }
            }
        }
        for place in 0..<count {
            guard let connection = table[batch[place].id] else { continue }
            execute(batch[place].id, connection, batch[place].bytes, isFresh: true)
        }
        count = 0
    }

    private func peerClosed(_ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>) {
        connection.pointee.hasPeerClosed = true
        connection.pointee.isClosing = true
        closeIfDone(id, connection)
    }

    // ---- Frames ----

    private func execute(
        _ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer,
        isFresh: Bool
    ) {
        let reception = handler.receive(id, kind: connection.pointee.kind, bytes, output)
        precondition(reception.consumed <= bytes.count)
        if isFresh {
            if reception.consumed < bytes.count {
                connection.pointee.input.append(UnsafeRawBufferPointer(rebasing: bytes[reception.consumed...]))
            }
        } else {
            connection.pointee.input.consume(reception.consumed)
        }
        connection.pointee.needed = 0
        switch reception.next {
        case .needBytes(let count): connection.pointee.needed = count
        case .more: if !connection.pointee.input.isEmpty { markReady(id, connection) }
        case .suspended: connection.pointee.isSuspended = true
        case .close:
            connection.pointee.isClosing = true
            connection.pointee.input.release()
        }
        send(id, connection)
    }

    private func markReady(_ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>) {
        guard !connection.pointee.isReady else { return }
        connection.pointee.isReady = true
        ready.append(id)
    }

    /// One share of every connection that had frames left.
    func serveReady() {
        let waiting = ready
        guard !waiting.isEmpty else { return }
        ready.removeAll(keepingCapacity: true)
        for id in waiting {
            guard let connection = table[id] else { continue }
            connection.pointee.isReady = false
            proceed(id, connection)
        }
    }

    /// Goes on with bytes that had to wait, if nothing is in their way any more.
    func proceed(_ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>) {
        let isHeldUp = connection.pointee.isSuspended || connection.pointee.isReady
            || connection.pointee.output.count > Reactor.unsentMax
        if isHeldUp { return updateEvents(id, connection) }
        if connection.pointee.input.count > 0, connection.pointee.input.count >= connection.pointee.needed {
            execute(id, connection, connection.pointee.input.bytes, isFresh: false)
        } else {
            closeIfDone(id, connection)
        }
    }

    // ---- Late answers ----

    /// Where a late answer of a suspended connection is written; nil if it has closed. `resume` sends it.
    package func output(of id: ConnectionID) -> OutputBuffer? {
        precondition(output.count == 0, "a late answer inside another one")
        return table[id] == nil ? nil : output
    }

    /// The late answer is in the output: sends it and goes on with what has waited behind it.
    package func resume(_ id: ConnectionID) {
        guard let connection = table[id] else { return }
        connection.pointee.isSuspended = false
        connection.pointee.patienceNanoseconds = Reactor.sendTimeoutNanoseconds
        if !connection.pointee.input.isEmpty { markReady(id, connection) }
        send(id, connection)
    }

    /// A part of the answer of a suspended connection: sent after what waits already. The client may take nothing of it
    /// for `patienceMilliseconds`, 0 for as long as of any answer. Returns how many bytes wait now, nil if the connection
    /// has closed.
    package func stream(_ id: ConnectionID, _ bytes: UnsafeRawBufferPointer, patienceMilliseconds: UInt64) -> Int? {
        guard let connection = table[id] else { return nil }
        precondition(connection.pointee.isSuspended, "only a suspended connection is streamed to")
        let patience = patienceMilliseconds * 1_000_000
        connection.pointee.patienceNanoseconds = max(patience, Reactor.sendTimeoutNanoseconds)
        guard give(id, connection, bytes) else { return nil }
        updateEvents(id, connection)
        return connection.pointee.output.count
    }

    // ---- Answers ----

    /// Sends what the shared output holds, after what has waited longer; empties the output. Whatever the call before it
    /// changed about the connection, epoll is asked for the right events afterwards.
    private func send(_ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>) {
        defer { output.truncate(to: 0) }
        if give(id, connection, output.bytes) { closeIfDone(id, connection) }
    }

    /// Sends bytes after what has waited longer, and keeps what the socket does not take. False: the connection is gone.
    private func give(
        _ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer
    ) -> Bool {
        if !connection.pointee.output.isEmpty {
            connection.pointee.output.append(bytes)
        } else if bytes.count > 0 {
            guard let sent = transmit(id, connection, bytes) else { return false }
            if sent < bytes.count {
                connection.pointee.output.append(UnsafeRawBufferPointer(rebasing: bytes[sent...]))
                connection.pointee.blockedSince = now.monotonic.nanoseconds
            }
        }
        return true
    }

    /// Sends what has waited. False: the connection is gone.
    private func sendPending(_ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>) -> Bool {
        let bytes = connection.pointee.output.bytes
        if bytes.count > 0 {
            guard let sent = transmit(id, connection, bytes) else { return false }
            if sent > 0 {
                connection.pointee.output.consume(sent)
                connection.pointee.blockedSince = now.monotonic.nanoseconds
                connection.pointee.lastActive = now.monotonic.nanoseconds
            }
        }
        if connection.pointee.output.isEmpty { connection.pointee.blockedSince = 0 }
        return true
    }

    /// Gives the socket what it takes at once and returns how many bytes that were; nil if the connection is gone now.
    private func transmit(
        _ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeRawBufferPointer
    ) -> Int? {
        let sent = Glibc.send(
            connection.pointee.descriptor, bytes.baseAddress!, bytes.count, Int32(MSG_NOSIGNAL))
        guard sent < 0 else { return sent }
        guard errno == EAGAIN || errno == EINTR else {
            closeConnection(id)
            return nil
        }
        return 0
    }

    /// Asks epoll for what this connection can use now.
    private func updateEvents(_ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>) {
        let wanted = (connection.pointee.output.isEmpty ? 0 : Reactor.writable)
            | (isBlocked(connection) ? hangUp(id, connection) : Reactor.readable)
        guard wanted != connection.pointee.events else { return }
        connection.pointee.events = wanted
        apus_epoll_change(epoll, connection.pointee.descriptor, wanted, id.rawValue)
    }

    /// What to ask for while nothing is read: whether the peer closes, if a long answer is under way.
    private func hangUp(_ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>) -> UInt32 {
        connection.pointee.isSuspended && handler.isStreaming(id) ? Reactor.peerHasClosed : 0
    }

    // ---- Open and close ----

    /// Takes over a socket.
    func adopt(descriptor: Int32, kind: UInt8) {
        apus_socket_prepare(descriptor)
        let (id, connection) = table.open(descriptor: descriptor, kind: kind)
        connection.pointee.events = Reactor.readable
        connection.pointee.lastActive = now.monotonic.nanoseconds
        gauges.opened()
        guard !gauges.isStopAsked, apus_epoll_add(epoll, descriptor, Reactor.readable, id.rawValue) == 0 else {
            return closeConnection(id)
        }
    }

    /// Closes a connection that is to close and owes nothing any more; else asks for what it waits for.
    func closeIfDone(_ id: ConnectionID, _ connection: UnsafeMutablePointer<Connection>) {
        let owes = connection.pointee.isSuspended || connection.pointee.isReady || !connection.pointee.output.isEmpty
        if connection.pointee.isClosing, !owes { return closeConnection(id) }
        // Most clients send nothing while an answer is outstanding: asking epoll twice for each request would be for
        // nothing. If bytes come all the same, `serve` stops asking for them.
        if connection.pointee.isSuspended, connection.pointee.output.isEmpty { return }
        updateEvents(id, connection)
    }

    /// Closes now, whatever is outstanding.
    func closeConnection(_ id: ConnectionID) {
        guard let connection = table[id] else { return }
        close(connection.pointee.descriptor)
        gauges.closed(connection.pointee.kind)
        table.close(id)
        handler.connectionClosed(id)
    }

    /// Closes connections that have been idle, or have not taken their answers, for too long.
    func sweep() {
        pauseAccepting(false)
        let idle = settings.idleMilliseconds * 1_000_000
        table.forEachOpen { id in
            guard let connection = table[id] else { return }
            let blocked = connection.pointee.blockedSince
            let isStuck = blocked > 0 && now.monotonic.nanoseconds - blocked > connection.pointee.patienceNanoseconds
            let isIdle = idle > 0 && !connection.pointee.isSuspended
                && now.monotonic.nanoseconds - connection.pointee.lastActive > idle
            // Half a request that does not go on holds memory.
            let isHalf = !connection.pointee.input.isEmpty && connection.pointee.output.isEmpty
                && !connection.pointee.isSuspended && !connection.pointee.isReady
                && now.monotonic.nanoseconds - connection.pointee.lastActive > Reactor.halfRequestTimeoutNanoseconds
            guard isStuck || isIdle || isHalf else { return }
            gauges.reaped()
            closeConnection(id)
        }
    }
}
