// Memory that a ring knows: the kernel need not look up its pages for each transfer. Invariants:
// 1. `regions` is sorted by address, without overlaps; each has a number that the kernel has it registered under.
// 2. A region is registered as long as one of its holders (queues) lives: the caller may free it afterwards, and other
//    memory may come to lie at its addresses.
internal import CUring
internal import Files
internal import Glibc
internal import Synchronization

/// The registered memory of one ring. Its owner's thread.
struct PreparedMemory: ~Copyable {
    private struct Region {
        var begin: UInt
        var end: UInt
        var number: Int32
    }

    private enum State {
        /// Nothing was registered yet.
        case unused
        case open
        /// The kernel refused: what is registered stays, no more is tried.
        case closed
    }

    private let ring: OpaquePointer
    private let regions: UnsafeMutablePointer<Region>
    private var count = 0
    private var latest = 0
    private var state = State.unused
    /// The queues that hold the region of each number; none: the number is free.
    private var holders: [[Int]] = []

    /// Regions of one ring: the kernel takes 16,384.
    private static let regionsMax = 1024
    /// The kernel takes no larger ones.
    private static let regionBytesMax = 1 << 30

    init(_ ring: OpaquePointer) {
        self.ring = ring
        regions = .allocate(capacity: PreparedMemory.regionsMax)
    }

    deinit { regions.deallocate() }

    /// The number under which all these bytes are registered; -1 if they are not.
    @inline(__always)
    mutating func number(of address: UInt, _ byteCount: Int) -> Int32 {
        if count == 0 { return -1 }
        let hit = regions[latest]
        if hit.begin <= address && address &+ UInt(bitPattern: byteCount) <= hit.end { return hit.number }
        return search(address, byteCount)
    }

    @inline(never)
    private mutating func search(_ address: UInt, _ byteCount: Int) -> Int32 {
        let place = firstPlace(endingAfter: address)
        guard place < count, regions[place].begin <= address, address + UInt(byteCount) <= regions[place].end else {
            return -1
        }
        latest = place
        return regions[place].number
    }

    private func firstPlace(endingAfter address: UInt) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if regions[middle].end > address { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// Registers memory; what cannot be registered is used as it is.
    mutating func add(_ memory: UnsafeMutableRawBufferPointer, holder: Int) {
        guard let base = memory.baseAddress else { return }
        var done = 0
        while done < memory.count {
            let byteCount = min(memory.count - done, PreparedMemory.regionBytesMax)
            addRegion(base + done, byteCount, holder)
            done += byteCount
        }
    }

    private mutating func addRegion(_ address: UnsafeMutableRawPointer, _ byteCount: Int, _ holder: Int) {
        let begin = UInt(bitPattern: address)
        let place = firstPlace(endingAfter: begin)
        if place < count, regions[place].begin < begin + UInt(byteCount) {
            // Known already, by another queue of this ring; or crosswise, which is left alone.
            let number = Int(regions[place].number)
            let isInside = regions[place].begin <= begin && begin + UInt(byteCount) <= regions[place].end
            if isInside, !holders[number].contains(holder) { holders[number].append(holder) }
            return
        }
        guard makeTable(), count < PreparedMemory.regionsMax, let number = holders.firstIndex(of: []) else { return }
        let result = apus_ring_register_memory(ring, UInt32(number), address, byteCount)
        guard result == 0 else { return refuse(-result) }
        holders[number] = [holder]
        for later in stride(from: count, to: place, by: -1) { regions[later] = regions[later - 1] }
        regions[place] = Region(begin: begin, end: begin + UInt(byteCount), number: Int32(number))
        count += 1
        latest = place
    }

    /// An empty table in the kernel (since 5.19), with the first region.
    private mutating func makeTable() -> Bool {
        if state == .unused {
            let result = apus_ring_register_table(ring, UInt32(PreparedMemory.regionsMax))
            if result < 0 {
                refuse(-result)
            } else {
                state = .open
                holders = Array(repeating: [], count: PreparedMemory.regionsMax)
            }
        }
        return state == .open
    }

    private mutating func refuse(_ failure: Int32) {
        state = .closed
        let reason =
            switch failure {
            case ENOMEM: "not enough memory may be locked (ulimit -l, or LimitMEMLOCK of the service)"
            case EINVAL: "the kernel is older than 5.19"
            default: errnoText(failure)
            }
        SystemNotes.memory.withLock {
            $0 = "buffers of devices are not registered with io_uring, which costs CPU time for each transfer: \(reason)"
        }
    }

    /// A queue is let go: memory that nobody else holds is taken out.
    mutating func remove(holder: Int) {
        var kept = 0
        for place in 0..<count {
            let number = Int(regions[place].number)
            holders[number].removeAll { $0 == holder }
            if holders[number].isEmpty {
                _ = apus_ring_register_memory(ring, UInt32(number), nil, 0)
            } else {
                regions[kept] = regions[place]
                kept += 1
            }
        }
        count = kept
        latest = 0
    }
}
