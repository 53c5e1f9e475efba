// The cluster part of a real node as a process of this world.
package import Assembly
package import Base
internal import Fabric
internal import Membership
internal import Partitions

/// See `ClusterNode`.
package final class ClusterProcess: SimulatedProcess {
    private var node: ClusterNode

    /// What was stored is what this world's disk kept: it can be understood, or the code is wrong.
    package init(_ boot: SimulatedBoot) {
        do throws(ClusterBootError) {
            node = try ClusterNode(ClusterProcess.translated(boot))
        } catch {
            preconditionFailure("what was stored cannot be understood: \(error.message)")
        }
    }

    package func step(
        _ event: ClusterEvent, now: TurnTime, random: inout SeededRandom, effects: inout [ClusterEffect]
    ) {
        node.step(event, now: now, random: &random, effects: &effects)
    }

    package var deadline: Instant { node.deadline }

    /// Canaries by the names of the command line. A sentence for a name that is not known.
    package static let breakNames = [
        "incarnation-ignored", "number-not-stored", "epoch-not-stored", "block-taken-again", "quota-by-hash-order",
        "two-proposers", "metadata-answered-early", "metadata-acknowledged-unstored",
    ]

    private static func breaks(_ names: [String]) -> ClusterBreaks {
        var breaks = ClusterBreaks()
        for name in names {
            switch name {
            case "incarnation-ignored":
                breaks.heartbeat.insert(.ignoresIncarnation)
                breaks.views.insert(.ignoresIncarnation)
            case "number-not-stored": breaks.views.insert(.acceptsWithoutStoring)
            case "epoch-not-stored": breaks.partitions.insert(.forgetsEpochs)
            case "block-taken-again": breaks.views.insert(.takesBlockAgain)
            case "quota-by-hash-order": breaks.partitions.insert(.hashOrderedQuota)
            case "two-proposers": breaks.views.insert(.twoProposersOneNumber)
            case "metadata-answered-early": breaks.metadata.insert(.answersEarly)
            case "metadata-acknowledged-unstored": breaks.metadata.insert(.acknowledgesUnstored)
            default: preconditionFailure("no rule is called \(name): \(breakNames)")
            }
        }
        return breaks
    }

    private static func translated(_ boot: SimulatedBoot) -> ClusterBoot {
        var settings = ClusterSettings()
        settings.clusterName = boot.clusterName
        settings.heartbeat.mode = boot.isMulticast ? .multicast : .mesh
        settings.heartbeat.seeds = boot.seeds.map { SeedName(host: $0.host, port: $0.port) }
        settings.heartbeat.intervalMilliseconds = boot.intervalMilliseconds
        settings.heartbeat.timeoutIntervals = boot.timeoutIntervals
        settings.heartbeat.connectTimeoutMilliseconds = boot.connectTimeoutMilliseconds
        settings.minClusterSize = boot.minClusterSize
        settings.startWaitMilliseconds = boot.startWaitMilliseconds
        settings.startWaitMaxMilliseconds = boot.startWaitMaxMilliseconds
        settings.namespaces = boot.namespaces.map(translated)
        var translated = ClusterBoot(
            me: boot.member, addresses: boot.addresses,
            services: ServiceAddresses(clear: ["\(boot.addresses.fabric[0].host):3000"], clearAlternate: []),
            build: "8.1.0.0", settings: settings, storedView: boot.storedView,
            storedPartitions: boot.storedPartitions.map {
                StoredPartitions(namespace: $0.namespace, metadata: $0.metadata)
            }, now: boot.now)
        translated.metadata = boot.metadata
        translated.breaks = breaks(boot.breaks)
        translated.processSeed = boot.member.incarnation
        return translated
    }

    private static func translated(_ namespace: SimulatedNamespace) -> NamespaceClusterSettings {
        var settings = NamespaceClusterSettings(name: namespace.name)
        settings.replicationFactor = UInt32(namespace.replicationFactor)
        settings.rackID = namespace.rack
        settings.prefersUniformBalance = namespace.prefersUniformBalance
        return settings
    }
}
