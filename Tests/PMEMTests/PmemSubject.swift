import BlockStore
import PMEM
import Storage
import StorageConformance

/// Persistent memory, simulated, under the kit's hand.
final class PmemSubject: ConformanceSubject {
    private let shape: PmemShape
    private let byteCount: Int
    private let fileCount: Int
    private let seed: UInt64
    private let evictPercent: Int
    private(set) var machine: SimulatedPmem
    private let lines = LogLines()

    init(
        byteCount: Int, blockSize: Int, headSize: Int = 16 << 10, imageSizeMax: Int = 64 << 10, fileCount: Int = 1,
        seed: UInt64, evictPercent: Int = 0, canary: BlockCanary? = nil
    ) {
        var shape = PmemShape()
        shape.blockSize = blockSize
        shape.headSize = headSize
        shape.imageSizeMax = imageSizeMax
        shape.canary = canary
        self.shape = shape
        self.byteCount = byteCount
        self.fileCount = fileCount
        self.seed = seed
        self.evictPercent = evictPercent
        machine = SimulatedPmem(seed: seed)
    }

    var descriptor: BackendDescriptor { descriptor(machine) }

    private func descriptor(_ machine: SimulatedPmem) -> BackendDescriptor {
        let seed = seed
        return PMEM.descriptor(opener: machine, entropy: { seed }, shape: shape)
    }

    func make() throws(StorageError) -> any Backend { try open(SimulatedPmem(seed: seed), byteCount) }

    func makeSmall() throws(StorageError) -> (any Backend)? {
        try open(SimulatedPmem(seed: seed), shape.headSize + 24 * shape.blockSize)
    }

    func reopen(after ending: Ending) throws(StorageError) -> any Backend {
        switch ending {
        case .close: try open(machine, nil)
        case .crash(let seed): try open(machine.afterPowerFailure(seed: seed), nil)
        }
    }

    private func open(_ machine: SimulatedPmem, _ byteCount: Int?) throws(StorageError) -> any Backend {
        self.machine = machine
        // What was prepared for the session before does not count for this one.
        machine.cancelCrash()
        let files = (0..<fileCount).map { (name: "file", value: "p\($0)") }
        let size = byteCount.map { [(name: "filesize", value: "\($0)")] } ?? []
        return try PmemTestOpening.open(descriptor(machine), files + size, lines)
    }

    func prepareCrash(after operations: Int, seed: UInt64) -> Bool {
        machine.prepareCrash(after: operations, seed: seed)
        return true
    }

    func advance() { if evictPercent > 0 { machine.evict(percent: evictPercent) } }
}
