// What a node knows of the others.
internal import Base
internal import Fabric

/// How a member stands.
enum PeerStanding: Sendable, Equatable {
    /// Somebody named it; it was never heard.
    case known
    /// Its pulses arrive: a neighbour.
    case present
    /// Silent for the timeout. May come back.
    case departed
    /// A younger incarnation was heard, or it said goodbye.
    case retired
    /// Another incarnation of its id is alive, too: none of them is a neighbour.
    case contested
}

/// One member of which something is known.
struct HeartbeatPeer: Sendable {
    let member: Member
    var standing = PeerStanding.known
    var since: Instant
    /// Where others are told to dial.
    var addresses: NodeAddresses
    /// Addresses beyond those that have led to it.
    var reachedBy: [Address] = []
    /// Where its last words came from.
    var from: Address?
    var content = PulseContent(view: .none, accepted: 0, isLeaving: false, clock: 0)
    /// Its clock minus this node's, in milliseconds.
    var clockOffset: Int64 = 0
    var hears: [Member] = []
    var serial: UInt64 = 0
    var sequence: UInt64 = 0
    var pace = HeartbeatPace()
    var duplicates: [NodeID] = []
    var lastPulse: Instant
    var lastEvidence: Instant
    /// When it last said that it hears this node.
    var heardMe: Instant
    /// It will not pulse again.
    var hasSaidGoodbye = false
    /// Of a retired one: at how many different intervals it was heard since, and when last.
    var sightings: UInt64 = 0
    var lastSighting: Instant
    // Mesh: the stream to it.
    var dial = Dial()
    /// Nobody listened at the address that was tried last.
    var isRefused = false
    /// The next pulse on the stream says all of `hears`.
    var needsList = true
    /// Streams of it that were accepted and have not been confirmed yet.
    var unconfirmed: [UInt64] = []
    // Multicast: parts of the pulse `partsSequence`.
    var parts: [[Member]?] = []
    var partsSequence: UInt64 = 0

    init(_ member: Member, addresses: NodeAddresses, now: Instant) {
        self.member = member
        self.addresses = addresses
        since = now
        lastPulse = now
        lastEvidence = now
        heardMe = now
        lastSighting = now
    }

    func isAt(_ address: Address) -> Bool {
        addresses.heartbeat.contains(address) || reachedBy.contains(address)
    }
}

/// All of them, by id and incarnation. Bounded.
struct HeartbeatPeers: Sendable {
    static let countMax = 2048
    private static let perNode = 8
    var all: [HeartbeatPeer] = []

    /// Where it is, or would be.
    private func place(_ member: Member) -> Int { all.lowerBound { $0.member < member } }

    func index(of member: Member) -> Int? {
        let place = place(member)
        return place < all.count && all[place].member == member ? place : nil
    }

    /// All incarnations of an id.
    func indices(of id: NodeID) -> Range<Int> {
        let begin = place(Member(id: id, incarnation: 0))
        var end = begin
        while end < all.count, all[end].member.id == id { end += 1 }
        return begin..<end
    }

    /// A new one, unless there is no room. What is of least use gives way; `removed` is called with it before.
    mutating func insert(_ peer: HeartbeatPeer, removing removed: (HeartbeatPeer) -> Void) -> Bool {
        let same = indices(of: peer.member.id)
        if same.count >= HeartbeatPeers.perNode {
            guard drop(from: same, removed) else { return false }
        } else if all.count >= HeartbeatPeers.countMax {
            guard drop(from: all.indices, removed) else { return false }
        }
        all.insert(peer, at: place(peer.member))
        return true
    }

    private mutating func drop(from range: Range<Int>, _ removed: (HeartbeatPeer) -> Void) -> Bool {
        let oldest = range.filter { all[$0].standing != .present && all[$0].standing != .contested }
            .min { all[$0].lastPulse < all[$1].lastPulse }
        guard let oldest else { return false }
        removed(all[oldest])
        all.remove(at: oldest)
        return true
    }
}
