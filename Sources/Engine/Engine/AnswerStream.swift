// Answers that leave in parts: large batches, queries. Invariants:
// 1. A stream is in the table from its first part until its connection has been answered or has closed.
// 2. A part is a run of whole frames; the last frame of the answer is marked last and goes with `answered`.

/// Who gives an answer in parts hears of its connection. Subclassed; reactor's thread only.
class AnswerStream {
    /// The connection, which is suspended until the answer is complete.
    let connection: UInt64

    init(connection: UInt64) { self.connection = connection }

    /// The client has taken all that was streamed.
    func drained() { preconditionFailure("a stream goes on") }

    /// The connection is gone: nobody waits for the answer any more. The stream has left the table.
    func connectionClosed() { preconditionFailure("a stream ends") }
}

/// The streams of one reactor, in no order: few at a time.
final class StreamTable {
    private var streams: [AnswerStream] = []

    func add(_ stream: AnswerStream) { streams.append(stream) }

    func remove(_ stream: AnswerStream) {
        guard let place = streams.firstIndex(where: { $0 === stream }) else { return }
        streams.swapAt(place, streams.count - 1)
        streams.removeLast()
    }

    func contains(_ connection: UInt64) -> Bool { streams.contains { $0.connection == connection } }

    func drained(_ connection: UInt64) { streams.first { $0.connection == connection }?.drained() }

    func connectionClosed(_ connection: UInt64) {
        guard let stream = streams.first(where: { $0.connection == connection }) else { return }
        remove(stream)
        stream.connectionClosed()
    }
}
