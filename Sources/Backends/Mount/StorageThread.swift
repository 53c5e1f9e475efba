// One storage thread: runs the calls of one inner shard of a blocking backend. Invariants:
// 1. The inner shard is called on this thread only.
// 2. Every operation that was posted here goes back to its own shard's mailbox exactly once, ended or failed.
// 3. Bytes that the inner shard lends are copied before its turn ends.
internal import Base
internal import CBase
internal import Glibc
internal import Storage

/// One call on its way to a storage thread and back. Belongs to the posting shard, to the thread while it is posted there.
struct Operation {
    enum Kind: UInt8 { case append, read, remove, commit }
    enum Outcome {
        case underWay
        case placed(Location)
        case read
        case absent
        case done
        case failed(StorageError)
    }
    /// First, so that the letter's address is the operation's.
    var letter = Letter(kind: 0)
    let home: Mailbox
    var kind = Kind.read
    var digest = Digest(low: 0, middle: 0, high: 0)
    var stream = Stream.fresh
    var location = Location(rawValue: 0)
    var tag = Tag(rawValue: 0)
    /// Bytes to append, or bytes that were read.
    var buffer: UnsafeMutableRawPointer?
    var capacity = 0
    var byteCount = 0
    /// What it counts for against the bytes under way.
    var carried = 0
    var outcome = Outcome.underWay

    /// Copies `bytes` into memory of the operation's own.
    mutating func keep(_ bytes: UnsafeRawBufferPointer) {
        if capacity < bytes.count {
            buffer?.deallocate()
            buffer = .allocate(byteCount: bytes.count, alignment: 64)
            capacity = bytes.count
        }
        byteCount = bytes.count
        if let source = bytes.baseAddress { buffer?.copyMemory(from: source, byteCount: bytes.count) }
    }

    /// The kept bytes.
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: buffer, count: byteCount) }
}

typealias OperationPointer = UnsafeMutablePointer<Operation>

/// See the invariants above. `post` and `stop` on any thread.
final class StorageThread: @unchecked Sendable {
    /// Operations of one round: bounds how long the first of them waits for the last.
    private static let roundMax = 32
    /// Reactors go first: a saturated backend must not take the processors from namespaces in memory.
    private static let niceness: Int32 = 10
    /// How long an inner shard with operations under way is left alone at most.
    private static let pollMilliseconds: Int32 = 10
    private let number: Int
    private let mailbox: Mailbox
    private let bell: Bell
    private var shard: (any BackendShard)?
    private var waiting: [OperationPointer] = []
    private var ended: [OperationPointer] = []
    private var underWay = 0
    private var thread = pthread_t()
    private let stopLetter = OperationPointer.allocate(capacity: 1)
    private var isStopping = false
    /// What the inner shard said after its last round.
    private let pressureWord = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)

    /// Makes the inner shard and starts the thread.
    init(_ inner: any Backend, number: Int, of count: Int) throws(StorageError) {
        self.number = number
        let bell = Bell()
        self.bell = bell
        let ring: @Sendable () -> Void = { apus_bell_ring(bell.word) }
        mailbox = Mailbox(wake: ring)
        shard = try inner.makeShard(ShardRequest(index: number, count: count, wake: ring))
        stopLetter.initialize(to: Operation(home: mailbox))
        pressureWord.initialize(to: UInt32(Pressure.none.rawValue))
        let reason = pthread_create(
            &thread, nil,
            { pointer in
                Unmanaged<StorageThread>.fromOpaque(pointer!).takeRetainedValue().run()
                return nil
            }, Unmanaged.passRetained(self).toOpaque())
        guard reason == 0 else { throw .device(errno: reason, operation: "start a storage thread") }
    }

    deinit {
        stopLetter.deallocate()
        pressureWord.deallocate()
    }

    /// How pressed the inner shard was a moment ago. Any thread.
    var pressure: Pressure { Pressure(rawValue: UInt8(apus_load_relaxed_u32(pressureWord))) ?? .none }

    /// Runs the operation here. Any thread.
    func post(_ operation: OperationPointer) {
        mailbox.post(UnsafeMutableRawPointer(operation).assumingMemoryBound(to: Letter.self))
    }

    /// Ends the thread when everything posted before is done. Once.
    func stop() {
        post(stopLetter)
        pthread_join(thread, nil)
    }

    private func run() {
        apus_background_thread("storage-\(number)", StorageThread.niceness)
        while true {
            mailbox.take { letter in
                let operation = UnsafeMutableRawPointer(letter).assumingMemoryBound(to: Operation.self)
                if operation == stopLetter { isStopping = true } else { waiting.append(operation) }
            }
            if !waiting.isEmpty || underWay > 0 {
                round()
            } else if isStopping {
                break
            }
            if waiting.isEmpty { rest() }
        }
        shard = nil
    }

    /// Waits for operations, or for the inner shard to end one.
    private func rest() {
        guard !isStopping || underWay > 0, mailbox.prepareToSleep() else { return }
        guard let shard else { return }
        shard.turnEnded(sleeping: true)
        // Pressure ends by itself, and nobody posts anything while it lasts.
        let isIdle = underWay == 0 && pressure == .none
        apus_bell_wait(bell.word, isIdle ? -1 : StorageThread.pollMilliseconds)
        mailbox.woke()
        notePressure(shard)
    }

    /// One turn of the inner shard: calls, then commits, so that one sync serves all.
    private func round() {
        guard let shard else { return }
        let count = min(waiting.count, StorageThread.roundMax)
        for operation in waiting[..<count] where operation.pointee.kind != .commit { start(operation, shard) }
        if underWay > 0 { shard.poll { finish($0) } }
        for operation in waiting[..<count] where operation.pointee.kind == .commit { start(operation, shard) }
        if underWay > 0 { shard.poll { finish($0) } }
        waiting.removeFirst(count)
        shard.turnEnded(sleeping: false)
        notePressure(shard)
        for operation in ended {
            operation.pointee.home.post(UnsafeMutableRawPointer(operation).assumingMemoryBound(to: Letter.self))
        }
        ended.removeAll(keepingCapacity: true)
    }

    private func notePressure(_ shard: any BackendShard) {
        apus_store_release_u32(pressureWord, UInt32(shard.pressure.rawValue))
    }

    private func start(_ operation: OperationPointer, _ shard: any BackendShard) {
        do throws(StorageError) {
            let outcome = try call(operation, shard)
            if case .underWay = outcome { underWay += 1 } else { end(operation, outcome) }
        } catch {
            end(operation, .failed(error))
        }
    }

    private func call(
        _ operation: OperationPointer, _ shard: any BackendShard
    ) throws(StorageError) -> Operation.Outcome {
        let tag = Tag(rawValue: UInt64(UInt(bitPattern: operation)))
        let digest = operation.pointee.digest
        switch operation.pointee.kind {
        case .append:
            let answer = try shard.append(
                digest, operation.pointee.bytes, stream: operation.pointee.stream, tag: tag)
            guard case .placed(let location) = answer else { return .underWay }
            return .placed(location)
        case .read:
            let answer = try shard.read(
                digest, at: operation.pointee.location, byteCount: operation.pointee.byteCount, tag: tag)
            switch answer {
            case .pending: return .underWay
            case .absent: return .absent
            case .here(let bytes):
                operation.pointee.keep(bytes)
                return .read
            }
        case .remove:
            guard case .done = try shard.remove(digest, at: operation.pointee.location, tag: tag) else { return .underWay }
            return .done
        case .commit:
            guard case .done = try shard.commit(digest, tag: tag) else { return .underWay }
            return .done
        }
    }

    private func finish(_ completion: borrowing Completion) {
        guard let operation = OperationPointer(bitPattern: UInt(completion.tag.rawValue)) else { return }
        underWay -= 1
        switch completion.result {
        case .placed(let location): end(operation, .placed(location))
        case .read(let bytes):
            operation.pointee.keep(bytes)
            end(operation, .read)
        case .absent: end(operation, .absent)
        case .done: end(operation, .done)
        case .failed(let error): end(operation, .failed(error))
        }
    }

    private func end(_ operation: OperationPointer, _ outcome: Operation.Outcome) {
        operation.pointee.outcome = outcome
        ended.append(operation)
    }
}

/// What a storage thread sleeps on. Kept by everybody who may ring it.
private final class Bell: @unchecked Sendable {
    let word: UnsafeMutablePointer<UInt32>

    init() {
        word = .allocate(capacity: 1)
        word.initialize(to: 0)
    }

    deinit { word.deallocate() }
}
