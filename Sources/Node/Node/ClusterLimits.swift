// Limits that hold in the whole cluster: a record that one member may store has to fit on all that get a copy.
internal import Assembly
internal import Base
internal import Configuration
internal import Engine
internal import Fabric
internal import Partitions

extension LiveNamespaceSettings {
    /// What a namespace is configured to, held to the least of what the other members of the view are.
    init(_ configured: NamespaceConfiguration, _ snapshot: ClusterSnapshot?) {
        self.init(configured)
        // This node's own value in the map is that of the last view.
        let peers = snapshot?.peers.map(\.id) ?? []
        for entry in snapshot?.bundle?.blocks ?? [] where peers.contains(entry.member.id) {
            for limit in entry.block.namespace(configured.name)?.limits ?? [] where limit.name == "max-record-size" {
                recordSizeMax = min(recordSizeMax, Int(clamping: limit.value))
            }
        }
    }
}

extension NodeState {
    /// A view may have brought other limits. The control thread.
    func putLimitsInForce() {
        let snapshot = cluster.snapshot
        for configured in configuration.namespaces {
            guard let namespace = namespace(configured.name) else { continue }
            let values = LiveNamespaceSettings(configured, snapshot)
            guard values != namespace.live.current.pointee else { continue }
            tellReactors(namespace.live.change(to: values))
        }
    }
}
