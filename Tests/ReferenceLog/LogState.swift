// What the reference log knows in memory. Invariants:
// 1. There is at most one open block and in it at most one open group; whatever is appended, noted or moved goes there, in
//    one order for all shards. Groups become durable in that order, one write at a time: after a crash the log has a
//    beginning of it, and goes on behind it in the same block.
// 2. An image has one sequence for life; its copies (moving makes them) share it. It is live until it was released; then a
//    note with its sequence follows it, for as long as a copy of it is on the medium.
// 3. A block is wiped, and only then used again, when no image in it is live, the group that took the last one away is
//    durable, no read of it is under way, every shard has ended the turn it was in, and no note in it is still needed.
// 4. The memory of a block stays until the block is closed and all its groups are durable.
// 5. What the reserve has given stays with moves and notes: an append needs a reserve that is whole.
// 6. Everything here is under the lock of `LogCore`.
internal import Base
internal import Device
internal import Storage

enum BlockPhase { case free, open, closed, wiping }

/// One copy of an image in a block.
struct BlockEntry {
    let sequence: UInt64
    /// Where the image, not its header, begins on the device.
    let offset: Int
    let byteCount: Int
}

struct LogBlock {
    var phase = BlockPhase.free
    var generation: UInt64 = 0
    var fill = 0
    /// Bytes of the live images whose place is here, with their headers.
    var liveBytes = 0
    var images: [BlockEntry] = []
    /// Sequences of released images that notes in this block are about.
    var notes: [UInt64] = []
    /// The group in which its last image was overwritten, released or moved.
    var emptiedGroup: UInt64 = 0
    var emptiedTurn: UInt64 = 0
    /// Reads under way.
    var pins = 0
    /// Groups that are not durable yet.
    var unwrittenGroups = 0
    var isVictim = false
    /// Holds an image that cannot be read, and so cannot be moved.
    var isDamaged = false
    var buffer: LogBuffer?
}

struct LogImage {
    let digest: Digest
    let byteCount: Int
    /// Where it begins on the device; the copy that counts.
    var offset: Int
    var isLive: Bool
    /// Where the note about its release is.
    var noteBlock: Int?
    /// Blocks that hold copies of it.
    var copies: [Int]
    var storedByteCount: Int { LogFormat.entryHeaderSize + Envelope.storedByteCount(byteCount) }
}

struct SealedGroup {
    let number: UInt64
    let block: Int
    let range: Range<Int>
    let buffer: LogBuffer
}

/// An operation of a shard that has ended.
enum LogResult {
    case placed(Location)
    case read(LogBuffer, Range<Int>)
    case done
    case failed(StorageError)
}

struct LogShardState {
    let wake: @Sendable () -> Void
    var ended: [(tag: Tag, result: LogResult)] = []
    /// Turn counter when its present turn began; the largest if it is in none.
    var turn = UInt64.max
    var victim: LogVictim?
}

/// A block that a shard empties.
struct LogVictim {
    let block: Int
    let entries: [BlockEntry]
    var next = 0
    /// Its bytes; nil while they are being read.
    var buffer: LogBuffer?
    var failure: StorageError?
    var isBeingRead: Bool { buffer == nil && failure == nil }
}

/// What a device operation is for.
enum LogOperation {
    case group
    case wipe(block: Int, LogBuffer)
    case read(shard: Int, tag: Tag, digest: Digest, offset: Int, block: Int, LogBuffer)
    case victim(shard: Int, block: Int, LogBuffer)
}
