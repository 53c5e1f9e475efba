// A mailbox: one per receiving thread, filled by any thread. Invariants:
// 1. A letter is in at most one mailbox at a time; its memory belongs to the poster until `take` has handed
//    it over, then to the receiver.
// 2. `head` is a stack of posted letters, newest first; the receiver takes the whole stack at once and turns
//    it around, so letters of one poster arrive in the order they were posted.
// 3. `asleep` is 1 only while the receiver is about to wait or waits; whoever turns it to 0 must wake it,
//    exactly once.
internal import CBase

/// What travels: linked through its own memory, so posting never allocates and a mailbox is never full.
public struct Letter: BitwiseCopyable {
    /// The next letter, 0 for none. Owned by the mailbox while posted.
    public var next: UInt = 0
    /// What this is about; the receiver's to interpret.
    public var kind: UInt32 = 0
    /// A small argument.
    public var argument: UInt32 = 0
    /// A large argument, often an address.
    public var payload: UInt64 = 0

    /// Joins the parts.
    public init(kind: UInt32, argument: UInt32 = 0, payload: UInt64 = 0) {
        self.kind = kind
        self.argument = argument
        self.payload = payload
    }
}

/// A mailbox, see the invariants above. `post` on any thread; everything else on the receiver's.
public final class Mailbox: @unchecked Sendable {
    // Two lines: posters write the first, the receiver's sleep state is the second.
    private let words: UnsafeMutablePointer<UInt64>
    private let wake: @Sendable () -> Void
    private var head: UnsafeMutableRawPointer { UnsafeMutableRawPointer(words) }
    private var asleep: UnsafeMutableRawPointer { UnsafeMutableRawPointer(words + 8) }

    /// Makes an empty mailbox; `wake` is called on the poster's thread when the receiver sleeps.
    public init(wake: @escaping @Sendable () -> Void) {
        words = .allocate(capacity: 16)
        words.initialize(repeating: 0, count: 16)
        self.wake = wake
    }

    deinit { words.deallocate() }

    /// Posts a letter; wakes the receiver if it sleeps. Any thread.
    public func post(_ letter: UnsafeMutablePointer<Letter>) {
        while true {
            let first = apus_load_acquire_u64(head)
            letter.pointee.next = UInt(first)
            if apus_compare_exchange_u64(head, first, UInt64(UInt(bitPattern: letter))) { break }
        }
        apus_fence()
        if apus_load_acquire_u64(asleep) == 1, apus_exchange_u64(asleep, 0) == 1 { wake() }
    }

    /// Hands over all letters in order of posting. Receiver's thread.
    public func take(_ receive: (UnsafeMutablePointer<Letter>) -> Void) {
        guard apus_load_acquire_u64(head) != 0 else { return }
        var stack = UInt(apus_exchange_u64(head, 0))
        var ordered: UInt = 0
        while let letter = UnsafeMutablePointer<Letter>(bitPattern: stack) {
            let next = letter.pointee.next
            letter.pointee.next = ordered
            ordered = stack
            stack = next
        }
        while let letter = UnsafeMutablePointer<Letter>(bitPattern: ordered) {
            ordered = letter.pointee.next
            receive(letter)
        }
    }

    /// Announces that the receiver is about to wait. False: letters have come, do not wait. Receiver's
    /// thread.
    public func prepareToSleep() -> Bool {
        apus_exchange_u64(asleep, 1)
        apus_fence()
        guard apus_load_acquire_u64(head) == 0 else {
            apus_exchange_u64(asleep, 0)
            return false
        }
        return true
    }

    /// The receiver runs again. Receiver's thread.
    public func woke() { apus_store_release_u64(asleep, 0) }
}
