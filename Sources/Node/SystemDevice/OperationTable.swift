// The operations under way on the queues of one thread. Invariants:
// 1. A place is free, under way (started, not ended) or ended (waiting for its queue to be polled); each is in exactly one
//    of: the free chain, nowhere, the chain of ends.
// 2. `used[queue]` counts the places of a queue that are not free, and is at most `depth`; `underWay[queue]` those that have
//    not ended.
// 3. Nothing here is locked: whoever owns the table says who may touch it.
internal import Device

/// What an operation does; its place in `OperationTable` holds the rest.
enum OperationKind: UInt8 {
    case read, write, durableWrite, flush, discard
}

/// One place: an operation from `submit` to its hand-over.
struct Operation {
    var tag: UInt64 = 0
    /// The caller's buffer; nil for a flush or a discard.
    var address: UnsafeMutableRawPointer?
    var offset = 0
    var byteCount = 0
    /// Bytes of it that have been transferred.
    var doneByteCount = 0
    var queue: Int32 = 0
    /// The next place of the chain that this one is in; -1 at its end.
    var next: Int32 = -1
    /// 0, or the errno of its failure: valid once it has ended.
    var failure: Int32 = 0
    /// How often it was started anew without progress.
    var retries: UInt8 = 0
    var kind = OperationKind.flush

    /// What its owner is told.
    var completion: DeviceCompletion {
        DeviceCompletion(tag: tag, outcome: failure == 0 ? .done(byteCount: byteCount) : .failed(errno: failure))
    }
}

/// See the invariants above.
struct OperationTable: ~Copyable {
    let depth: Int
    private let places: UnsafeMutablePointer<Operation>
    private let used: UnsafeMutablePointer<Int32>
    private let underWay: UnsafeMutablePointer<Int32>
    private let capacity: Int
    private var free: Int32 = 0
    private var firstEnd: Int32 = -1
    private var lastEnd: Int32 = -1

    /// Room for `depth` operations on each of `queues` queues.
    init(queues: Int, depth: Int) {
        precondition(queues > 0 && depth > 0 && queues * depth < Int(Int32.max), "a queue has room for an operation")
        self.depth = depth
        capacity = queues * depth
        places = .allocate(capacity: capacity)
        places.initialize(repeating: Operation(), count: capacity)
        for place in 0..<capacity { places[place].next = place + 1 < capacity ? Int32(place + 1) : -1 }
        used = .allocate(capacity: queues)
        used.initialize(repeating: 0, count: queues)
        underWay = .allocate(capacity: queues)
        underWay.initialize(repeating: 0, count: queues)
    }

    deinit {
        places.deallocate()
        used.deallocate()
        underWay.deallocate()
    }

    /// The operation at a place.
    subscript(place: Int32) -> UnsafeMutablePointer<Operation> {
        precondition(place >= 0 && place < capacity, "no such operation")
        return places + Int(place)
    }

    /// True when a queue has no room.
    func isFull(_ queue: Int) -> Bool { used[queue] >= depth }

    /// Operations of a queue that have not ended.
    func underWayCount(_ queue: Int) -> Int { Int(underWay[queue]) }

    /// Places an operation; the queue must have room.
    mutating func add(_ operation: Operation) -> Int32 {
        let place = free
        precondition(place >= 0 && !isFull(Int(operation.queue)), "a full queue refuses")
        free = places[Int(place)].next
        places[Int(place)] = operation
        used[Int(operation.queue)] += 1
        underWay[Int(operation.queue)] += 1
        return place
    }

    /// Counts a place as ended without putting it into the chain: the caller hands it over at once, then frees it.
    mutating func markEnded(_ place: Int32) {
        underWay[Int(places[Int(place)].queue)] -= 1
    }

    /// Puts an ended place where `takeEnd` finds it.
    mutating func appendEnd(_ place: Int32) {
        self[place].pointee.next = -1
        if lastEnd >= 0 { places[Int(lastEnd)].next = place } else { firstEnd = place }
        lastEnd = place
    }

    /// Frees an ended place.
    mutating func remove(_ place: Int32) {
        used[Int(places[Int(place)].queue)] -= 1
        places[Int(place)].next = free
        free = place
    }

    /// True when `takeEnd` finds something for some queue.
    var hasEnds: Bool { firstEnd >= 0 }

    /// Takes the first end of a queue, of any queue if nil, out of the chain and frees its place.
    mutating func takeEnd(of queue: Int?) -> DeviceCompletion? {
        var before: Int32 = -1
        var place = firstEnd
        while place >= 0 {
            let operation = places[Int(place)]
            if queue == nil || Int(operation.queue) == queue {
                if before >= 0 { places[Int(before)].next = operation.next } else { firstEnd = operation.next }
                if lastEnd == place { lastEnd = before }
                remove(place)
                return operation.completion
            }
            before = place
            place = operation.next
        }
        return nil
    }
}
