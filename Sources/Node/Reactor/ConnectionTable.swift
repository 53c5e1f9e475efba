// The connections of one reactor, by slot. Invariants:
// 1. A slot is open or in `free`, never both. 2. Pointers stay valid: slots live in chunks that are never
//    moved.

/// Slots for connections, see the invariants above. Reactor's thread only.
final class ConnectionTable {
    private static let chunkSize = 256
    private var chunks: [UnsafeMutablePointer<Connection>] = []
    private var free: [Int] = []
    private(set) var openCount = 0

    deinit { for chunk in chunks { chunk.deallocate() } }

    private func slot(_ number: Int) -> UnsafeMutablePointer<Connection> {
        chunks[number / ConnectionTable.chunkSize] + number % ConnectionTable.chunkSize
    }

    /// The open connection of that name; nil if it has closed.
    subscript(_ id: ConnectionID) -> UnsafeMutablePointer<Connection>? {
        guard id.slot < chunks.count * ConnectionTable.chunkSize else { return nil }
        let connection = slot(id.slot)
        return connection.pointee.isOpen && connection.pointee.generation == id.generation ? connection : nil
    }

    /// Takes a slot.
    func open(descriptor: Int32, kind: UInt8) -> (ConnectionID, UnsafeMutablePointer<Connection>) {
        if free.isEmpty { grow() }
        let number = free.removeLast()
        let connection = slot(number)
        let generation = connection.pointee.generation
        connection.pointee = Connection(descriptor: descriptor, generation: generation, kind: kind, isOpen: true)
        openCount += 1
        return (ConnectionID(slot: number, generation: generation), connection)
    }

    /// Gives a slot back; its name is worth nothing from here on.
    func close(_ id: ConnectionID) {
        let connection = slot(id.slot)
        precondition(connection.pointee.isOpen && connection.pointee.generation == id.generation)
        connection.pointee.input.release()
        connection.pointee.output.release()
        connection.pointee.isOpen = false
        // Never 0: tokens below 2^32 name the mailbox and the listeners.
        connection.pointee.generation = connection.pointee.generation == .max ? 1 : connection.pointee.generation + 1
        free.append(id.slot)
        openCount -= 1
    }

    /// Calls `body` for every open connection; it may close the one it is called with.
    func forEachOpen(_ body: (ConnectionID) -> Void) {
        for number in 0..<(chunks.count * ConnectionTable.chunkSize) where slot(number).pointee.isOpen {
            body(ConnectionID(slot: number, generation: slot(number).pointee.generation))
        }
    }

    private func grow() {
        let first = chunks.count * ConnectionTable.chunkSize
        let chunk = UnsafeMutablePointer<Connection>.allocate(capacity: ConnectionTable.chunkSize)
        chunk.initialize(repeating: Connection(generation: 1), count: ConnectionTable.chunkSize)
        chunks.append(chunk)
        free.append(contentsOf: (first..<(first + ConnectionTable.chunkSize)).reversed())
    }
}
