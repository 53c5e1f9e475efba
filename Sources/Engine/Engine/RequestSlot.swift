package import Base
internal import Expressions
internal import Index
package import Wire

/// Where a write stands. A request moves downwards only; each step may wait for an effect, and nothing about
/// it is kept on a stack meanwhile.
package enum Phase: UInt8, BitwiseCopyable, Comparable {
    /// The slot is not in use.
    case free
    /// In the queue of somebody else's claim.
    case waiting
    /// Owns the claim of its record.
    case claimed
    /// Other copies of the record have been asked.
    case resolved
    /// The previous image is at hand.
    case read
    /// The new image is built.
    case applied
    /// The backend has it; the index does not say so yet.
    case appended
    /// As durable as the namespace asks.
    case committed
    /// On every replica.
    case replicated
    /// In the index: readers see it.
    case published
    /// What the backend was told by publishing is as durable as the namespace asks.
    case settled
    /// Stored but refused by the index: the backend takes it back, then the client gets `result`.
    case abandoned
    /// The answer is written.
    case answered

    /// Earlier steps first.
    package static func < (left: Phase, right: Phase) -> Bool { left.rawValue < right.rawValue }
}

/// Who has asked for a request.
package enum RequestOrigin: UInt8, BitwiseCopyable, Sendable {
    case client
    /// A read that renews a time to live.
    case touch
    /// A record whose time is up.
    case expiry
    /// A record that has to make room.
    case eviction
    /// A record that was truncated.
    case truncate

    /// The engine deletes on its own.
    @inline(__always)
    var isOwnDelete: Bool { rawValue >= RequestOrigin.expiry.rawValue }
}

/// One request under way. Lives in the arena of its reactor's `EngineShard`, at a fixed address for the life
/// of the process. The claim links are guarded by the lock of the record's partition; everything else belongs
/// to the reactor.
package struct RequestSlot: BitwiseCopyable {
    /// Carries the slot to its own reactor. First, so that a letter's address is its slot's.
    package var letter: Letter
    /// The reactor it belongs to.
    package let reactor: Int
    /// Which namespace of the engine.
    var namespace: Int
    var phase: Phase
    var isRead: Bool

    // Claim links.
    var claimNext: UnsafeMutablePointer<RequestSlot>?
    var waiterFirst: UnsafeMutablePointer<RequestSlot>?
    var waiterLast: UnsafeMutablePointer<RequestSlot>?
    var waiterNext: UnsafeMutablePointer<RequestSlot>?
    var waiterCount: Int

    /// Who hears of the end, if it is not a connection; it outlives the request and keeps the request's bytes.
    var owner: Unmanaged<SlotOwner>?
    /// One read of the owner's, no request: its end goes to `SlotOwner.scanned`.
    var isScan: Bool
    /// The owner's number for this request.
    var ownerRow: UInt32
    /// Where the owner keeps what it knows about this request while it waits.
    var ownerPlace: Int32

    // The request; `body` is owned memory that holds the bytes once the request of a connection has to wait.
    var connection: UInt64
    /// Answered after its turn: the answer goes through `EngineShell.output(of:)`.
    var isLate: Bool
    /// Who has asked for it.
    var origin: RequestOrigin
    /// Own deletes: the record is deleted only if this is its void-time.
    var expectedVoidTime: UInt32
    var request: RequestPointer
    var digest: Digest
    var started: Instant
    var deadline: Instant
    var body: UnsafeMutableRawPointer?
    var bodyCapacity: Int
    /// What the operations answered, in memory of the slot's own while the request waits.
    var results: UnsafeMutableRawPointer?
    var resultByteCount: Int
    var resultCount: Int

    // The machine.
    var hasPrevious: Bool
    /// The previous version has expired or is truncated: the write is one of a new record.
    var isPreviousHidden: Bool
    var isReplaced: Bool
    var isDelete: Bool
    /// The delete leaves a tombstone: it goes on as a write of that.
    var isTombstone: Bool
    /// Carries a touch operation: the record must exist.
    var hasTouch: Bool
    /// Carries an expression operation.
    var hasExpression: Bool
    /// Counted for the slot: see Filtering.swift.
    var filter: Unmanaged<Expression>?
    /// A backend under pressure has put it off.
    var isDelayed: Bool
    /// Waits until it is decided who serves its partition.
    var isParked: Bool
    /// A write that holds its record: `Scratch.routesGeneration` when its partition was served here; else 0.
    var routedAt: UInt64
    /// Reads: how often the record was looked up.
    var attempts: UInt8
    /// Where this slot is in `SlotPool.suspended`.
    var suspendedAt: Int
    var previous: IndexEntry
    var next: IndexEntry
    var result: ResultCode

    init(reactor: Int) {
        letter = Letter(kind: LetterKind.claimPassed)
        self.reactor = reactor
        namespace = 0
        phase = .free
        isRead = false
        waiterCount = 0
        isScan = false
        ownerRow = 0
        ownerPlace = -1
        connection = 0
        isLate = false
        origin = .client
        expectedVoidTime = 0
        digest = Digest(low: 0, middle: 0, high: 0)
        request = RequestSlot.noRequest
        started = Instant(nanoseconds: 0)
        deadline = started
        bodyCapacity = 0
        resultByteCount = 0
        resultCount = 0
        hasPrevious = false
        isPreviousHidden = false
        isReplaced = false
        isDelete = false
        isTombstone = false
        hasTouch = false
        hasExpression = false
        isDelayed = false
        isParked = false
        routedAt = 0
        attempts = 0
        suspendedAt = -1
        previous = IndexEntry(digest: digest)
        next = previous
        result = .ok
    }
}

extension RequestSlot {
    /// What a slot that is not in use points at.
    nonisolated(unsafe) static let noRequest: RequestPointer = {
        let empty = UnsafeMutablePointer<RequestView>.allocate(capacity: 1)
        empty.initialize(to: .empty)
        return UnsafePointer(empty)
    }()

    /// The record leaves the index and nothing is stored.
    @inline(__always)
    var removesEntry: Bool { isDelete && !isTombstone }

    /// A read-touch: a write of the engine's own.
    @inline(__always)
    var isTouch: Bool {
        get { origin == .touch }
        set { origin = newValue ? .touch : .client }
    }

    /// A write or delete of the engine's own that nobody is told about.
    @inline(__always)
    var isOwn: Bool { origin != .client }

    /// Fills a slot that is not in use with a request whose digest is there.
    mutating func begin(_ request: RequestPointer, namespace: Int, connection: UInt64, now: Instant) {
        precondition(claimNext == nil && waiterFirst == nil && waiterNext == nil && filter == nil)
        self.request = request
        self.namespace = namespace
        self.connection = connection
        owner = nil
        isScan = false
        digest = request.pointee.digest
        started = now
        isLate = false
        origin = .client
        isRead = false
        isDelete = false
        isTombstone = false
        hasTouch = false
        hasExpression = false
        isDelayed = false
        isParked = false
        routedAt = 0
        attempts = 0
        phase = .free
    }
}

extension RequestSlot {
    /// Fills a slot that is not in use with one read of an owner.
    mutating func beginScan(_ digest: Digest, namespace: Int, owner: SlotOwner, row: Int) {
        self.namespace = namespace
        self.owner = .passUnretained(owner)
        isScan = true
        ownerRow = UInt32(row)
        self.digest = digest
        phase = .read
    }
}

/// A parsed request that stays where it is until it is answered, or until the slot has kept a copy.
package typealias RequestPointer = UnsafePointer<RequestView>

/// Address of a slot.
package typealias SlotPointer = UnsafeMutablePointer<RequestSlot>

/// What a slice of background work came to.
package enum BackgroundWork: Sendable, BitwiseCopyable {
    /// There was nothing to do.
    case none
    /// Something was done, and more may be left: a tenth of the time is enough for it.
    case some
    /// It falls behind the requests that cause it: half of the time.
    case pressing
}

/// Kinds of letters the engine sends to a reactor; all go to `EngineShard.letter`.
package enum LetterKind {
    /// A claim has passed to the slot whose letter this is.
    package static let claimPassed: UInt32 = 1
    /// A part of a query comes to its reactor.
    package static let queryPart: UInt32 = 2
    /// An empty chunk comes to a part of a query.
    package static let queryRoom: UInt32 = 3
    /// A filled chunk comes to its query.
    package static let queryFilled: UInt32 = 4
    /// A part of a query has ended.
    package static let queryEnded: UInt32 = 5
    /// Kinds from this on are not the engine's.
    package static let end: UInt32 = 100
}
