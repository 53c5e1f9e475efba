package import Base
package import Storage

/// Memory of a namespace that outlives simulated processes: its regions, and the header that a segment has. What
/// `afterKill` and `afterPowerFailure` give is for the next process; the old one must not be used any more.
package final class SimulatedMemory: KeptMemory, @unchecked Sendable {
    /// The header: changes in one step, and lasts at once.
    package struct Header: Sendable {
        package var keys: [UInt64] = []
        package var isComplete = false
        package var wasClosed = false
    }
    package private(set) var header: Header
    package private(set) var regions: [(name: String, region: SimulatedRegion)] = []
    /// Why each cold start was.
    package private(set) var reasons: [String] = []
    private let isPersistent: Bool
    private let seed: UInt64
    private var images: [(name: String, image: [UInt8])]
    /// Called when a region is made.
    package var prepare: ((String, SimulatedRegion) -> Void)?

    /// Empty memory; `isPersistent` for memory that has to be persisted and outlives a loss of power.
    package init(isPersistent: Bool, seed: UInt64) {
        self.isPersistent = isPersistent
        self.seed = seed
        header = Header()
        images = []
    }

    private init(_ before: SimulatedMemory, seed: UInt64, images: [(name: String, image: [UInt8])]) {
        isPersistent = before.isPersistent
        self.seed = seed
        header = before.header
        self.images = images
    }

    package var name: String { isPersistent ? "pmem" : "shmem" }
    package var sessionKeys: [UInt64] { header.isComplete ? header.keys : [] }
    package var wasClosed: Bool { header.wasClosed }

    package func startCold(because reason: String) throws(StorageError) {
        precondition(regions.isEmpty, "regions are asked for later")
        reasons.append(reason)
        header = Header()
        images = []
    }

    package func beginSession(_ key: UInt64) throws(StorageError) {
        header.keys = (header.isComplete ? header.keys : []) + [key]
        header.wasClosed = false
    }

    package func sessionBegan() throws(StorageError) { header.keys = Array(header.keys.suffix(1)) }

    package func region(_ name: String, capacity: Int) throws(StorageError) -> any MemoryRegion {
        if let known = regions.first(where: { $0.name == name }) { return known.region }
        let image = images.first { $0.name == name }?.image ?? []
        let region = SimulatedRegion(
            capacity: capacity, seed: seed &+ UInt64(regions.count), needsPersist: isPersistent, image: image)
        prepare?(name, region)
        regions.append((name, region))
        return region
    }

    package func complete() throws(StorageError) { header.isComplete = true }

    package func close(isClean: Bool) { header.wasClosed = isClean }

    // ---- Crashes ----

    /// What the next process finds if this one is killed now.
    package func afterKill() -> SimulatedMemory {
        SimulatedMemory(self, seed: seed &+ 1, images: left { $0.killImage() })
    }

    /// What the next process finds if power fails now: nothing, unless it is persistent.
    package func afterPowerFailure(seed: UInt64) -> SimulatedMemory {
        guard isPersistent else { return SimulatedMemory(isPersistent: false, seed: seed) }
        return SimulatedMemory(self, seed: seed, images: left { $0.crashImage(seed: seed) })
    }

    private func left(_ image: (SimulatedRegion) -> [UInt8]) -> [(name: String, image: [UInt8])] {
        regions.map { ($0.name, image($0.region)) }
            + images.filter { one in !regions.contains { $0.name == one.name } }
    }
}
