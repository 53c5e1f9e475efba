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
    /// Whether every effect answers `done` at once. Constant.
    var isAlone: Bool { get }
    /// May this node serve the partition now? `refused(.unavailable)` if not.
    func route(_ partition: PartitionID, namespace: Int, isWrite: Bool) -> EffectAnswer
    /// Are there copies elsewhere that must be asked before the record is read?
    func resolve(_ slot: SlotPointer) -> EffectAnswer
    /// The image is appended: send it to the replicas.
    func replicate(_ slot: SlotPointer) -> EffectAnswer
}

/// A node without a cluster: serves everything, asks nobody.
package final class LoneNode: ClusterEffects {
    package init() {}
    package let isAlone = true
    package func route(_ partition: PartitionID, namespace: Int, isWrite: Bool) -> EffectAnswer { .done }
    package func resolve(_ slot: SlotPointer) -> EffectAnswer { .done }
    package func replicate(_ slot: SlotPointer) -> EffectAnswer { .done }
}
