// How a client learns who is in a cluster: a machine without I/O. Whoever drives it connects, asks, and tells
// it what came. Invariants:
// 1. A node is known by its id; one address of it is used at a time.
// 2. At most one request to an address is outstanding.
internal import Base

/// A numeric address and port.
package struct NodeAddress: Hashable, Sendable, CustomStringConvertible {
    package let host: String
    package let port: Int

    package init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// Reads `host:port`, with brackets around an IPv6 host; nil if it is neither.
    package init?(_ text: String) {
        let body = text.hasPrefix("[") ? text.dropFirst() : Substring(text)
        guard let colon = body.lastIndex(of: ":"), let port = Int(body[body.index(after: colon)...]),
            (1...65_535).contains(port)
        else { return nil }
        var host = body[..<colon]
        if text.hasPrefix("[") {
            guard host.hasSuffix("]") else { return nil }
            host = host.dropLast()
        } else if host.contains(":") {
            return nil
        }
        guard !host.isEmpty else { return nil }
        self.init(host: String(host), port: port)
    }

    package var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// See the invariants above.
package struct Tend: Sendable {
    /// What whoever drives the machine has to do.
    package enum Effect: Sendable, Equatable {
        /// Ask these info commands at this address, then report `answered` or `failed`.
        case ask(NodeAddress, [String])
    }

    /// A node as known now.
    package struct Node: Sendable, Equatable {
        package let id: String
        package var address: NodeAddress
        package var partitionGeneration: Int
    }

    /// In the order they were found; their places are the node numbers of `partitions`.
    package private(set) var nodes: [Node] = []
    package private(set) var partitions = PartitionMap()
    private let namespace: String
    private var outstanding: Set<NodeAddress> = []
    private var seen: Set<NodeAddress> = []

    package init(namespace: String) { self.namespace = namespace }

    /// Nothing more is to come: everybody has answered or failed.
    package var isSettled: Bool { outstanding.isEmpty }

    /// Starts, or goes on, from addresses that were given or learnt.
    package mutating func seed(_ addresses: [NodeAddress], _ effects: inout [Effect]) {
        for address in addresses where seen.insert(address).inserted { ask(address, &effects) }
    }

    /// Asks every known node again; partitions are asked for as well.
    package mutating func refresh(_ effects: inout [Effect]) {
        for node in nodes { ask(node.address, &effects) }
    }

    private mutating func ask(_ address: NodeAddress, _ effects: inout [Effect]) {
        guard outstanding.insert(address).inserted else { return }
        effects.append(.ask(address, ["node", "partition-generation", "replicas", "peers-clear-std"]))
    }

    /// The address did not answer.
    package mutating func failed(_ address: NodeAddress) { outstanding.remove(address) }

    /// The address answered what it was asked.
    package mutating func answered(
        _ address: NodeAddress, _ answers: [(command: String, value: String)], _ effects: inout [Effect]
    ) {
        outstanding.remove(address)
        func value(_ command: String) -> String { answers.first { $0.command == command }?.value ?? "" }
        let id = value("node")
        guard !id.isEmpty, let generation = Int(value("partition-generation")) else { return }
        let number = nodes.firstIndex { $0.id == id } ?? nodes.count
        let node = Node(id: id, address: address, partitionGeneration: generation)
        if number == nodes.count { nodes.append(node) } else { nodes[number] = node }
        if generation >= 0, let claimed = PartitionMap.parse(value("replicas"), namespace: namespace) {
            partitions.take(node: number, regime: claimed.regime, bitmap: claimed.bitmap)
        }
        seed(Tend.peers(value("peers-clear-std")), &effects)
    }

    /// The addresses in an answer to `peers-clear-std`: `generation,port,[[id,tls,[host:port,...]],...]`.
    /// Each peer's first.
    static func peers(_ text: String) -> [NodeAddress] {
        let head = text.split(separator: ",", maxSplits: 2)
        guard head.count == 3 else { return [] }
        let portDefault = Int(head[1]) ?? 3000
        var addresses: [NodeAddress] = []
        // Depth 3 is the list of one peer's addresses.
        var depth = 0
        var word = ""
        var isFirst = false
        for character in head[2] {
            switch character {
            case "[" where depth < 3:
                depth += 1
                if depth == 3 {
                    word = ""
                    isFirst = true
                }
            case "]" where depth == 3 && word.hasPrefix("[") && !word.contains("]"): word.append(character)
            case "]", ",":
                if depth == 3, isFirst, !word.isEmpty {
                    if let address = NodeAddress(word) ?? NodeAddress("\(word):\(portDefault)") { addresses.append(address) }
                    isFirst = false
                }
                if character == "]" { depth -= 1 }
                word = ""
            default: word.append(character)
            }
        }
        return addresses
    }
}
