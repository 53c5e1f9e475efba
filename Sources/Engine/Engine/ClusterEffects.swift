package import Base

/// What the cluster says to an effect of the write machine.
package enum EffectAnswer: Sendable, BitwiseCopyable {
    /// Go on.
    case done
    /// Comes later: `EngineShard.resume` with the slot.
    case pending
    /// Answer the client with this.
    case refused(ResultCode)
}

/// The places where a request meets the cluster layer. The engine knows no cluster: Node hands one of these
/// in. Called on the reactor, never under a lock.
package protocol ClusterEffects: AnyObject {
    /// Whether there are no replicas: `resolve` and `replicate` answer `done` at once. Constant.
    var isAlone: Bool { get }
    /// Whether `route` has to be asked. Constant.
    var isRouting: Bool { get }
    /// May this node serve the partition now? `refused(.unavailable)` if not; `pending` if that is being decided:
    /// `EngineShard.routesChanged` tells when it is.
    func route(_ partition: PartitionID, namespace: Int, isWrite: Bool) -> EffectAnswer
    /// The epoch of writes to the partition; nil for that of the namespace.
    func epoch(of partition: PartitionID, namespace: Int) -> Epoch?
    /// Are there copies elsewhere that must be asked before the record is read?
    func resolve(_ slot: SlotPointer) -> EffectAnswer
    /// The image is appended: send it to the replicas.
    func replicate(_ slot: SlotPointer) -> EffectAnswer
}

extension ClusterEffects {
    /// A cluster decides who serves what.
    package var isRouting: Bool { !isAlone }
    /// That of the namespace.
    package func epoch(of partition: PartitionID, namespace: Int) -> Epoch? { nil }
}

/// A node without a cluster: serves everything, asks nobody.
package final class LoneNode: ClusterEffects {
    package init() {}
    package let isAlone = true
    package func route(_ partition: PartitionID, namespace: Int, isWrite: Bool) -> EffectAnswer { .done }
    package func resolve(_ slot: SlotPointer) -> EffectAnswer { .done }
    package func replicate(_ slot: SlotPointer) -> EffectAnswer { .done }
}
