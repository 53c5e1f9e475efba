// What can go wrong, as values: a run writes down which faults it drew, and can be repeated with some of them left out.
package import Assembly

/// One fault, or the end of one. Nodes are named by their numbers, from 0.
package enum Fault: Sendable, Equatable {
    case cut(Int, Int)
    case cutOneWay(from: Int, to: Int)
    /// Bit i says on which side node i is.
    case split(UInt64)
    /// Two sides that only `over` still reaches both of.
    case bridge(UInt64, over: Int)
    case isolate(Int)
    case cutRack(UInt32)
    /// Nobody gets through to its fabric port; its heartbeats are heard, and it reaches the others.
    case shutFabric(Int)
    /// Every cut is mended.
    case heal
    /// What is sent on this way in the next time arrives after it, in order.
    case clog(from: Int, to: Int, milliseconds: UInt64)
    /// Every stream between two nodes is cut somewhere.
    case reset(Int, Int)
    /// kill -9; with the power nobody is told either.
    case crash(Int, isPower: Bool)
    /// A crash after which the disk is empty.
    case wipe(Int)
    /// A new process; `change` says which setting is another now.
    case restart(Int, ConfigurationChange)
    /// The process does nothing for a while; if `stopsClock`, its machine neither.
    case pause(Int, milliseconds: UInt64, stopsClock: Bool)
    case stepWall(Int, milliseconds: Int64)
    case disk(Int, DiskMood, milliseconds: UInt64)
    /// No name resolves for a while.
    case names(milliseconds: UInt64)
    /// SIGTERM.
    case leave(Int)
    case command(Int, ClusterCommand)
    /// An operator sets an item of system metadata; the number makes it another than all before.
    case metadata(Int, item: Int, value: Int)
}

/// What an operator changes between two starts of a node.
package enum ConfigurationChange: Sendable, Equatable {
    case none
    case rack(UInt32)
    case factor(Int)
    /// The namespace is taken out of the configuration, or put back.
    case toggleNamespace(Int)
}

/// A fault and when it struck, in virtual nanoseconds.
package struct TimedFault: Sendable, Equatable {
    package let time: UInt64
    package let fault: Fault

    package init(time: UInt64, fault: Fault) {
        self.time = time
        self.fault = fault
    }
}

extension Fault {
    /// Whether it hurts: mending and starting are written down, but not counted as faults.
    package var isHarm: Bool {
        switch self {
        case .heal, .restart, .metadata: false
        default: true
        }
    }

    /// The node that has to run for this to be a fault at all.
    var needsRunning: Int? {
        switch self {
        case .crash(let node, let isPower): isPower ? nil : node
        case .pause(let node, _, _), .leave(let node), .command(let node, _), .disk(let node, _, _): node
        case .metadata(let node, _, _): node
        default: nil
        }
    }

    /// The largest number of a node that it names.
    var lastNode: Int {
        switch self {
        case .cut(let one, let other), .reset(let one, let other): max(one, other)
        case .cutOneWay(let one, let other), .clog(let one, let other, _): max(one, other)
        case .bridge(_, let node), .isolate(let node), .shutFabric(let node): node
        case .crash(let node, _), .wipe(let node), .restart(let node, _): node
        case .pause(let node, _, _), .stepWall(let node, _), .disk(let node, _, _), .leave(let node): node
        case .command(let node, _), .metadata(let node, _, _): node
        case .split, .cutRack, .heal, .names: 0
        }
    }
}

extension Fault: CustomStringConvertible {
    /// In words, nodes as n1, n2 ...
    package var description: String {
        switch self {
        case .cut(let one, let other): "the link n\(one + 1)-n\(other + 1) is cut"
        case .cutOneWay(let from, let to): "the way n\(from + 1)>n\(to + 1) is cut"
        case .split(let mask): "the network is cut in two: \(Fault.sides(mask))"
        case .bridge(let mask, let over): "the network is cut in two: \(Fault.sides(mask)); n\(over + 1) reaches both"
        case .isolate(let node): "n\(node + 1) is cut off"
        case .shutFabric(let node): "nobody reaches the fabric port of n\(node + 1)"
        case .cutRack(let rack): "rack \(rack) is cut off"
        case .heal: "all cuts are mended"
        case .clog(let from, let to, let time): "the way n\(from + 1)>n\(to + 1) is clogged for \(time) ms"
        case .reset(let one, let other): "the streams n\(one + 1)-n\(other + 1) are reset"
        case .crash(let node, let isPower): "n\(node + 1) \(isPower ? "loses power" : "is killed")"
        case .wipe(let node): "n\(node + 1) is killed and its disk wiped"
        case .restart(let node, let change): "n\(node + 1) starts" + (change == .none ? "" : ", changed: \(change)")
        case .pause(let node, let time, let stops):
            "n\(node + 1) \(stops ? "is suspended" : "sleeps") for \(time) ms"
        case .stepWall(let node, let time): "the wall clock of n\(node + 1) steps by \(time) ms"
        case .disk(let node, let mood, let time): "the disk of n\(node + 1) is \(mood.rawValue) for \(time) ms"
        case .names(let time): "no name resolves for \(time) ms"
        case .leave(let node): "n\(node + 1) gets SIGTERM"
        case .metadata(let node, let item, let value): "n\(node + 1) is to set item \(item) to \(value)"
        case .command(let node, let command): "n\(node + 1) is told: \(command)"
        }
    }

    private static func sides(_ mask: UInt64) -> String {
        "those of " + String(mask, radix: 2) + " (n1 is the last digit) and the rest"
    }
}
