// What each fault does to the world.
internal import Assembly
internal import Base
internal import Metadata

extension World {
    func apply(_ fault: Fault) {
        switch fault {
        case .cut(let one, let other):
            network.cut(one, other)
            network.cut(other, one)
        case .cutOneWay(let from, let to): network.cut(from, to)
        case .split(let mask): network.cut { mask >> $0 & 1 != mask >> $1 & 1 }
        case .bridge(let mask, let over): network.cut { $0 != over && $1 != over && mask >> $0 & 1 != mask >> $1 & 1 }
        case .isolate(let node): network.cut { $0 == node || $1 == node }
        case .cutRack(let rack): cut(rack: rack)
        case .shutFabric(let node): shutFabric(node)
        case .heal:
            network.heal()
            wakeStalled()
        case .clog(let from, let to, let time): network.clog(from, to, until: now + time * 1_000_000)
        case .reset(let one, let other): reset(one, other)
        case .names(let time): network.failNames(until: now + time * 1_000_000)
        default: applyToMachine(fault)
        }
    }

    private func applyToMachine(_ fault: Fault) {
        switch fault {
        case .crash(let node, let isPower): crash(node, isPower: isPower)
        case .wipe(let node):
            crash(node, isPower: false)
            nodes[node].disk.wipe()
            checkers.wiped(node)
        case .restart(let node, let change):
            guard !nodes[node].isUp else { return }
            reconfigure(node, change)
            start(node)
        case .pause(let node, let time, let stopsClock): pause(node, milliseconds: time, stopsClock: stopsClock)
        case .stepWall(let node, let time): nodes[node].clock.stepWall(milliseconds: time)
        case .disk(let node, let mood, let time):
            nodes[node].disk.mood = mood
            nodes[node].disk.moodEnds = now + time * 1_000_000
        case .leave(let node): leave(node)
        case .command(let node, let command):
            nodes[node].nextToken += 1
            hand(node, .command(token: nodes[node].nextToken, command))
        case .metadata(let node, let item, let value): setMetadata(node, item, value)
        default: preconditionFailure("not a fault of one machine: \(fault)")
        }
    }

    private func setMetadata(_ node: Int, _ item: Int, _ value: Int) {
        nodes[node].nextToken += 1
        let key = MetadataKey([Array("space0".utf8), Array("set\(item)".utf8), Array("default-ttl".utf8)])
        let change = MetadataChange(.sets, key, .value("\(value)"))
        checkers.metadataIsAsked(nodes[node], nodes[node].nextToken, key, "\(value)")
        let time = nodes[node].clock.reading(now).wall.milliseconds
        hand(node, .changeMetadata(token: nodes[node].nextToken, [change], time: time))
    }

    private func cut(rack: UInt32) {
        let racks = nodes.map { $0.namespaces.first?.rack ?? 0 }
        network.cut { (racks[$0] == rack) != (racks[$1] == rack) }
    }

    private func reconfigure(_ node: Int, _ change: ConfigurationChange) {
        switch change {
        case .none: break
        case .rack(let rack): for place in nodes[node].namespaces.indices { nodes[node].namespaces[place].rack = rack }
        case .factor(let factor):
            for place in nodes[node].namespaces.indices { nodes[node].namespaces[place].replicationFactor = factor }
        case .toggleNamespace(let place):
            guard place < nodes[node].namespaces.count else { return }
            let name = nodes[node].namespaces[place].name
            if let known = nodes[node].absent.firstIndex(of: name) {
                nodes[node].absent.remove(at: known)
            } else {
                nodes[node].absent.append(name)
            }
        }
    }

    private func pause(_ node: Int, milliseconds: UInt64, stopsClock: Bool) {
        guard nodes[node].isUp, !nodes[node].isPaused else { return }
        nodes[node].isPaused = true
        let time = now + milliseconds * 1_000_000
        queue.push(.resume(node: node, run: nodes[node].run), at: time)
        if stopsClock { nodes[node].clock.stands(at: now) }
    }

    private func leave(_ node: Int) {
        guard nodes[node].isUp, !nodes[node].isLeaving else { return }
        nodes[node].isLeaving = true
        queue.push(.endOfGrace(node: node, run: nodes[node].run), at: now + World.graceNanoseconds)
        hand(node, .leave)
    }

    /// Time that a node has to leave before it is killed: its `shutdown-grace` and a little more.
    private static var graceNanoseconds: UInt64 { 25_000_000_000 }
}
