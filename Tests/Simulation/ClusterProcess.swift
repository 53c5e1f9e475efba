// The real cluster part of a node, as the world drives it.
package import Assembly
package import Base
internal import Fabric
internal import Membership
internal import Metadata
internal import Partitions

/// A process that is a `ClusterNode`.
package final class ClusterProcess: SimulatedProcess {
    private var node: ClusterNode

    /// Rules that can be switched off, by the name that `--break` takes.
    package static let breakNames = [
        "incarnation-ignored", "number-not-stored", "epoch-not-stored", "newer-blocks", "hash-order", "two-proposers",
        "metadata-answered-early", "metadata-acknowledged-unstored",
    ]

    package init(_ boot: SimulatedBoot) {
        do throws(ClusterBootError) {
            node = try ClusterNode(ClusterProcess.boot(boot))
        } catch {
            preconditionFailure("what a node stored it cannot read: \(error.message)")
        }
    }

    package var deadline: Instant { node.deadline }

    package func step(
        _ event: ClusterEvent, now: TurnTime, random: inout SeededRandom, effects: inout [ClusterEffect]
    ) {
        node.step(event, now: now, random: &random, effects: &effects)
    }

    private static func boot(_ simulated: SimulatedBoot) -> ClusterBoot {
        var settings = ClusterSettings()
        settings.clusterName = simulated.clusterName
        settings.heartbeat.mode = simulated.isMulticast ? .multicast : .mesh
        settings.heartbeat.seeds = simulated.seeds
        settings.heartbeat.intervalMilliseconds = simulated.intervalMilliseconds
        settings.heartbeat.timeoutIntervals = simulated.timeoutIntervals
        settings.heartbeat.connectTimeoutMilliseconds = simulated.connectTimeoutMilliseconds
        settings.minClusterSize = simulated.minClusterSize
        settings.startWaitMilliseconds = simulated.startWaitMilliseconds
        settings.startWaitMaxMilliseconds = simulated.startWaitMaxMilliseconds
        settings.namespaces = simulated.namespaces.map(namespace)
        let host = simulated.addresses.fabric[0].host
        var boot = ClusterBoot(
            me: simulated.member, addresses: simulated.addresses,
            services: ServiceAddresses(clear: ["\(host):3000"], clearAlternate: []), build: "simulated", settings: settings,
            storedView: simulated.storedView,
            storedPartitions: simulated.storedPartitions.map {
                StoredPartitions(namespace: $0.namespace, metadata: $0.metadata)
            },
            now: simulated.now)
        boot.metadata = simulated.metadata
        boot.breaks = breaks(simulated.breaks)
        boot.processSeed = simulated.member.incarnation
        return boot
    }

    private static func namespace(_ simulated: SimulatedNamespace) -> NamespaceClusterSettings {
        var settings = NamespaceClusterSettings(name: simulated.name)
        settings.replicationFactor = UInt32(simulated.replicationFactor)
        settings.rackID = simulated.rack
        settings.prefersUniformBalance = simulated.prefersUniformBalance
        return settings
    }

    private static func breaks(_ names: [String]) -> ClusterBreaks {
        var breaks = ClusterBreaks()
        for name in names {
            switch name {
            case "incarnation-ignored":
                breaks.heartbeat = .ignoresIncarnation
                breaks.views.insert(.ignoresIncarnation)
            case "number-not-stored": breaks.views.insert(.acceptsWithoutStoring)
            case "epoch-not-stored": breaks.partitions.insert(.forgetsEpochs)
            case "newer-blocks": breaks.views.insert(.takesBlockAgain)
            case "hash-order": breaks.partitions.insert(.hashOrderedQuota)
            case "two-proposers": breaks.views.insert(.twoProposersOneNumber)
            case "metadata-answered-early": breaks.metadata.insert(.answersEarly)
            case "metadata-acknowledged-unstored": breaks.metadata.insert(.acknowledgesUnstored)
            default: preconditionFailure("no rule is called \(name), there are \(breakNames)")
            }
        }
        return breaks
    }
}
