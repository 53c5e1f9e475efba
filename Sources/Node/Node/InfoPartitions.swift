// Which node has which partition, as clients and operators ask.
internal import Assembly
internal import Base
internal import Configuration
internal import Engine
internal import Index
internal import Membership
internal import Partitions
internal import Wire

extension InfoService {
    static let partitionCommands: [String: Command] = [
        "replicas": { service, request in service.replicas(request) },
        "replicas-all": { service, _ in
            service.eachMap { name, map in "\(name):\(InfoService.columns(map, service.state.nodeID, most: nil))" }
        },
        "replicas-master": { service, _ in
            service.eachMap { name, map in "\(name):\(InfoService.bitmap(map, service.state.nodeID, column: 0))" }
        },
        "rack-ids": { service, _ in
            service.eachMap { name, map in "\(name):\(map?.rack(of: service.state.nodeID) ?? service.configuredRack(name))" }
        },
        "racks": { service, request in service.racks(request) },
        "partition-info": { service, _ in service.partitionInfo },
        "partition-explain": { service, request in service.explain(request) },
    ]

    /// A text for each namespace of this node, with its map if there is one to go by.
    private func eachMap(_ text: (String, NamespaceMap?) -> String) -> String {
        let shown = state.phase == .starting || snapshot?.phase == .orphan ? nil : snapshot
        return state.configuration.namespaces.map { text($0.name, shown?.map($0.name)) }.joined(separator: ";")
    }

    private func configuredRack(_ namespace: String) -> UInt32 {
        let configured = state.configuration.namespaces.first { $0.name == namespace }
        return UInt32(clamping: configured?.number("rack-id") ?? 0)
    }

    // ---- Bitmaps ----

    /// `namespace:regime,columns,bitmap,...`: the regime is 0 in availability mode, the first column has what this node
    /// serves, the others what it has copies of.
    private func replicas(_ request: InfoRequest) -> String {
        var most: Int?
        if let text = request["max"] {
            guard let number = Int(text), number >= 0 else { return InfoError.text(4, "bad 'max'") }
            most = number == 0 ? nil : number
        }
        return eachMap { name, map in "\(name):0,\(InfoService.columns(map, state.nodeID, most: most))" }
    }

    /// `count,bitmap,...`; one empty bitmap without a map.
    private static func columns(_ map: NamespaceMap?, _ me: NodeID, most: Int?) -> String {
        let count = min(max(map?.copies ?? 1, 1), most ?? .max)
        return "\(count)," + (0..<count).map { bitmap(map, me, column: $0) }.joined(separator: ",")
    }

    private static func bitmap(_ map: NamespaceMap?, _ me: NodeID, column: Int) -> String {
        var bits = [UInt8](repeating: 0, count: PartitionID.count / 8)
        guard let map, let own = map.number(of: me) else { return Base64.encode(bits) }
        for partition in 0..<PartitionID.count where map.clientColumn(of: own, partition) == column {
            bits[partition >> 3] |= 0x80 >> UInt8(partition & 7)
        }
        return Base64.encode(bits)
    }

    // ---- Racks ----

    private func racks(_ request: InfoRequest) -> String {
        let wanted = request["namespace"]
        if let wanted, state.namespace(wanted) == nil { return InfoError.text(20, "namespace not found on node") }
        return state.configuration.namespaces.map(\.name).filter { wanted == nil || wanted == $0 }.map { name in
            let map = snapshot?.map(name)
            let nodes = map.map { Array(zip($0.racks, $0.nodes)) } ?? [(configuredRack(name), state.nodeID)]
            var text = "ns=\(name)"
            var last: UInt32?
            for (rack, node) in nodes.sorted(by: { ($0.0, $1.1) < ($1.0, $0.1) }) {
                text += rack == last ? ",\(node)" : ":rack_\(rack)=\(node)"
                last = rack
            }
            return text
        }.joined(separator: ";")
    }

    // ---- Partitions ----

    private static let partitionHeader =
        "namespace:partition:state:n_replicas:replica:succession:n_dupl:working_master:proxy_dst:emigrates:lead_emigrates"
        + ":immigrates:records:tombstones:regime:tree_id:version:final_version"

    private var partitionInfo: String {
        var rows = [InfoService.partitionHeader]
        for namespace in state.servingNamespaces {
            guard let map = snapshot?.map(namespace.settings.name),
                let own = map.number(of: state.nodeID)
            else { continue }
            let work = PartitionWork(map)
            for partition in 0..<PartitionID.count { rows.append(row(namespace, map, own, partition, work)) }
        }
        return rows.joined(separator: ";")
    }

    private func row(
        _ namespace: Namespace, _ map: NamespaceMap, _ own: UInt16, _ partition: Int, _ work: PartitionWork
    ) -> String {
        let replica = map.column(of: own, partition)
        let isMaster = map.actingMasters[partition] == own
        let (fills, duplicates) = (work.fills[partition], work.duplicates[partition])
        let records = namespace.index.count(PartitionID(UInt16(partition)))
        let state = replica == nil ? (records > 0 ? "Z" : "A") : fills.contains(own) ? "D" : "S"
        let epoch = map.epochs[partition]
        let key = String(epoch.viewKey, radix: 16)
        let version = String(repeating: "0", count: 12 - key.count) + key + ".0." + (isMaster ? "m" : "-")
            + (fills.contains(own) ? "s-" : "p-")
        let fields = [
            map.name, "\(partition)", state, "\(map.copies)", replica.map { "\($0)" } ?? "-1", "\(own)",
            "\(duplicates.count)", map.actingMaster(partition).map { "\($0)" } ?? "0", "0",
            isMaster ? "\(fills.count)" : "0", "0", fills.contains(own) ? "1" : "0", "\(records)", "0",
            "\(epoch.regime)", "0", version, version,
        ]
        return fields.joined(separator: ":")
    }

    /// `namespace=NS;partition=N`: why nodes have it, and who serves it, in lines.
    private func explain(_ request: InfoRequest) -> String {
        let (namespace, problem) = namespace(request)
        guard let namespace else { return problem }
        guard let text = request["partition"], let partition = Int(text), (0..<PartitionID.count).contains(partition) else {
            return InfoError.text(4, "missing or bad 'partition': 0 to \(PartitionID.count - 1)")
        }
        guard let told = snapshot?.bundle?.explain(partition: partition, namespace: namespace.settings.name) else {
            return InfoError.text(11, "this node has no view yet")
        }
        return told.split(separator: "\n").joined(separator: ";")
    }
}

/// What is to be moved, by partition.
struct PartitionWork {
    private(set) var fills: [[UInt16]]
    private(set) var duplicates: [[UInt16]]

    init(_ map: NamespaceMap) {
        fills = Array(repeating: [], count: PartitionID.count)
        duplicates = fills
        for (partition, nodes) in map.fills { fills[Int(partition.number)] = nodes }
        for (partition, nodes) in map.duplicates { duplicates[Int(partition.number)] = nodes }
    }
}

extension NamespaceMap {
    func rack(of node: NodeID) -> UInt32? { number(of: node).map { racks[Int($0)] } }

    /// Partitions that nobody serves.
    var unavailableCount: Int { actingMasters.reduce(0) { $0 + ($1 == NamespaceMap.nobody ? 1 : 0) } }

    /// The column in which clients find the partition at the node: 0 if it serves it, the others by order of the replicas
    /// that do not; nil if it has no copy.
    func clientColumn(of node: UInt16, _ partition: Int) -> Int? {
        let master = actingMasters[partition]
        if master == node { return 0 }
        var column = 0
        for place in 0..<copies {
            let replica = replicas[place * PartitionID.count + partition]
            if replica == master { continue }
            column += 1
            // As many columns as copies: where the acting master is no replica, the last one is not shown.
            if replica == node { return column < copies ? column : nil }
        }
        return nil
    }
}
