// The way to a storage thread and back, alone: reads of 139 bytes from a backend that does nothing, through the
// wrapper of blocking backends. Prints nanoseconds of CPU of the whole process per operation, and how often a side
// had to be woken.
import Base
import CBase
import CReactor
import Glibc
import Mount
import Storage

/// Blocking in name only: every read answers the same bytes at once.
private final class NullBackend: Backend {
    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard { NullShard() }
    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {}
    func loadNamespaceBlob() throws(StorageError) -> [UInt8] { [] }
    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {}
    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] { [] }
    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {}
    var statistics: BackendStatistics { BackendStatistics() }
    func close() throws(StorageError) {}
}

private final class NullShard: BackendShard {
    private let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 139, alignment: 64)
    func append(
        _ digest: Digest, _ image: UnsafeRawBufferPointer, stream: Stream, tag: Tag
    ) throws(StorageError) -> AppendAnswer { .placed(Location(rawValue: 1)) }
    func read(_ digest: Digest, at location: Location, byteCount: Int, tag: Tag) throws(StorageError) -> ReadAnswer {
        .here(UnsafeRawBufferPointer(bytes))
    }
    func commit(_ digest: Digest, tag: Tag) throws(StorageError) -> DoneAnswer { .done }
}

/// One reactor's loop, without sockets: starts a new read for each that ends.
private final class Loop {
    let shard: any BackendShard
    private let bell: UnsafeMutablePointer<UInt32>
    private var random = SeededRandom(seed: 1)
    private(set) var ended = 0
    private(set) var sleeps = 0

    init(_ backend: any Backend) throws {
        let bell = UnsafeMutablePointer<UInt32>.allocate(capacity: 1)
        bell.initialize(to: 0)
        self.bell = bell
        nonisolated(unsafe) let shared = bell
        shard = try backend.makeShard(ShardRequest(index: 0, count: 1, wake: { apus_bell_ring(shared) }))
    }

    private func start() throws {
        let digest = Digest(low: random.next(), middle: random.next(), high: UInt32(truncatingIfNeeded: random.next()))
        _ = try shard.read(digest, at: Location(rawValue: 1), byteCount: 139, tag: Tag(rawValue: 1))
    }

    func run(underWay: Int, operations: Int) throws {
        for _ in 0..<underWay { try start() }
        ended = 0
        sleeps = 0
        while ended < operations {
            let before = ended
            shard.turnEnded(sleeping: true)
            // As a reactor does: asleep until the shard's completions ring.
            apus_bell_wait(bell, 10)
            sleeps += 1
            shard.poll { _ in ended += 1 }
            for _ in before..<ended { try start() }
        }
        while drain(underWay) {}
    }

    private var left = 0
    private func drain(_ underWay: Int) -> Bool {
        left = 0
        shard.turnEnded(sleeping: false)
        shard.poll { _ in left += 1 }
        drained += left
        guard drained < underWay else {
            drained = 0
            return false
        }
        return true
    }
    private var drained = 0
}

let threads = CommandLine.arguments.count > 1 ? Int(CommandLine.arguments[1]) ?? 4 : 4
let backend = try ThreadedBackend(NullBackend(), threads: threads, queueMax: 4096)
private let loop = try Loop(backend)
for underWay in [1, 16, 64] {
    try loop.run(underWay: underWay, operations: 20_000)
    let begun = apus_clock_nanoseconds(CLOCK_PROCESS_CPUTIME_ID)
    let operations = underWay == 1 ? 50_000 : 500_000
    try loop.run(underWay: underWay, operations: operations)
    let spent = apus_clock_nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - begun
    print("\(underWay) under way: \(spent / UInt64(operations)) ns of CPU per operation,"
        + " \(Double(loop.sleeps * 1000 / operations) / 1000) turns of the reactor per operation")
}
try backend.close()
