// A node under fuzzing: the cluster part of a node, and a host that does at once whatever it wants done. Invariants:
// 1. All that happens to the node is an `Instruction`, so an input is a whole life and can be run again.
// 2. Whatever it is told, the node does not trap, sends whole frames only, and after `timer` wants to be called later, not
//    now.
import Assembly
import Base
import Fabric
import Membership
import Metadata

let interval: UInt64 = 50
let low = NodeID(rawValue: 0xA01), high = NodeID(rawValue: 0xA02)

/// How a life begins: the first byte of an input.
struct Mode: OptionSet {
    let rawValue: UInt8
    /// This node has the higher id of the two.
    static let high = Mode(rawValue: 1)
    static let multicast = Mode(rawValue: 2)
    /// It has the other among its seeds.
    static let seed = Mode(rawValue: 4)
    /// There are partitions: maps of 4096 of them make a life ten times as slow.
    static let namespace = Mode(rawValue: 8)
}

/// The cluster part of a node as the fuzzer and the recorder start it.
func start(_ id: NodeID, port: UInt16, seed: UInt16?, mode: Mode) -> ClusterNode {
    var settings = ClusterSettings()
    settings.clusterName = "blue"
    settings.heartbeat.mode = mode.contains(.multicast) ? .multicast : .mesh
    settings.heartbeat.seeds = seed.map { [SeedName(host: "10.0.0.1", port: $0)] } ?? []
    settings.heartbeat.intervalMilliseconds = interval
    settings.heartbeat.timeoutIntervals = 4
    let names = mode.contains(.namespace) ? ["test"] : []
    settings.namespaces = names.map { NamespaceClusterSettings(name: $0) }
    let addresses = NodeAddresses(
        heartbeat: [Address(host: "10.0.0.1", port: port)], fabric: [Address(host: "10.0.0.1", port: port + 1)])
    let boot = ClusterBoot(
        me: Member(id: id, incarnation: id.rawValue * 7), addresses: addresses,
        services: ServiceAddresses(clear: ["10.0.0.1:3000"], clearAlternate: []), build: "0.1.0", settings: settings,
        storedView: nil, storedPartitions: names.map { StoredPartitions(namespace: $0, metadata: []) }, now: time(0))
    do throws(ClusterBootError) { return try ClusterNode(boot) } catch { fatalError(error.message) }
}

func time(_ milliseconds: UInt64) -> TurnTime {
    TurnTime(
        monotonic: Instant(nanoseconds: 1_000_000_000 + milliseconds * 1_000_000),
        wall: RecordTime(milliseconds: 500_000_000_000 + milliseconds))
}

/// A node, its clock and its host.
struct Fuzzed {
    var node: ClusterNode
    var milliseconds: UInt64 = 0
    var random: SeededRandom
    /// What it sends on streams or asks of them, for whoever plays the other end.
    var said: [(port: PortKind, effect: StreamEffect)] = []
    /// What it stores.
    var stored: [StoreRequest] = []
    private var framers: [StreamID: StreamFramer] = [:]

    init(_ node: ClusterNode, seed: UInt64) {
        self.node = node
        random = SeededRandom(seed: seed)
    }

    /// One event, and what follows from it in its host at once.
    mutating func tell(_ event: ClusterEvent) {
        var events = [event], next = 0
        while next < events.count {
            precondition(next < 10_000, "a node and its disk talk to each other for ever")
            var effects: [ClusterEffect] = []
            node.step(events[next], now: time(milliseconds), random: &random, effects: &effects)
            next += 1
            for effect in effects {
                if let answer = done(effect) { events.append(answer) }
            }
        }
    }

    private mutating func done(_ effect: ClusterEffect) -> ClusterEvent? {
        switch effect {
        case .heartbeat(let effect): hear(effect, .heartbeat)
        case .fabric(let effect): hear(effect, .fabric)
        case .resolve(let seed): return .resolved(seed, [Address(host: seed.host, port: seed.port)])
        case .store(let ticket, let request):
            stored.append(request)
            return .stored(ticket)
        case .publish(let snapshot): return .published(snapshot.serial)
        case .reserveTimes(let ticket, let namespaces):
            return .timesReserved(ticket, namespaces.map { _ in time(milliseconds).wall.milliseconds })
        case .multicast(let bytes):
            do throws(FabricError) {
                _ = try FabricFrame(datagram: bytes)
            } catch { fatalError("a datagram of ours: \(error)") }
        case .answer, .answerMetadata, .left, .log: break
        }
        return nil
    }

    /// What is sent are frames.
    private mutating func hear(_ effect: StreamEffect, _ port: PortKind) {
        said.append((port, effect))
        guard case .send(_, let bytes) = effect else { return }
        var framer = StreamFramer()
        framer.append(bytes)
        do throws(FabricError) {
            while try framer.next() != nil {}
        } catch { fatalError("a frame of ours: \(error)") }
        precondition(framer.held == 0, "half a frame was sent")
    }

    /// When the node wants its timer, in whole milliseconds of our clock.
    private var due: UInt64 {
        let nanoseconds = node.deadline.nanoseconds, begin = time(0).monotonic.nanoseconds
        return nanoseconds <= begin ? 0 : (nanoseconds - begin - 1) / 1_000_000 + 1
    }

    /// Time goes by, in which timers end.
    mutating func wait(_ span: UInt64) {
        let end = milliseconds + span
        var calls = 0
        while true {
            let wanted = max(due, milliseconds)
            guard wanted <= end else { break }
            calls = wanted == milliseconds ? calls + 1 : 0
            precondition(calls < 100, "a node wants its timer again and again")
            milliseconds = wanted
            tell(.timer)
        }
        milliseconds = end
    }
}
