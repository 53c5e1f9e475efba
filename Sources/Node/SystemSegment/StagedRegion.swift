// One region of a segment: its stage files side by side in address space that was reserved for all of them. Invariants:
// 1. Address space of `capacity` bytes from `base` on is ours from `init` to `deinit`, and aligned to huge pages. What no
//    stage is mapped over cannot be touched at all.
// 2. Bytes before `backed` are allocated in their files: touching them never finds the medium full.
// 3. Files grow, then the header records it, then `backed` says so. So what a file has beyond the record nobody has
//    touched: it is zeros.
// 4. Stages are mapped in order, and only the last one may not be full; its file stays open to be grown.
// 5. Once retired a region stays readable and writable, and grows no more: its files may be somebody else's.
internal import Base
internal import Glibc
internal import Storage
internal import Synchronization

/// See the invariants above.
final class StagedRegion: MemoryRegion, @unchecked Sendable {
    /// What regions of one segment share.
    struct Place: Sendable {
        let medium: SegmentMedium
        /// Stage n lies in the n-th of these, counted around.
        let folders: [String]
        let stageByteCount: Int
        let header: SegmentHeaderFile
        /// For what an operator has to do something about.
        let warn: @Sendable (String) -> Void
    }

    private struct Growth {
        var stageCount = 0
        var lastDescriptor: Int32 = -1
        var isRetired = false
        var hasWarned = false
    }

    static let hugePageByteCount = 2 << 20
    private static let stepByteCount = 64 << 10
    /// Who needs little waits at most for so much while another thread grows by more.
    private static let pieceByteCount = 16 << 20
    let base: UnsafeMutableRawPointer
    let capacity: Int
    private let name: String
    private let place: Place
    private let reserved: UnsafeMutableRawBufferPointer
    private let backed: Atomic<Int>
    private let growing = Mutex(Growth())

    /// Maps what the header has recorded. The capacity is at least that.
    /// - Throws: `settings` without address space, `device`.
    init(_ name: String, capacity wanted: Int, _ place: Place) throws(StorageError) {
        let recorded = place.header.current.regions.first { $0.name == name }?.backedByteCount ?? 0
        capacity = max(wanted, recorded)
        self.name = name
        self.place = place
        let page = StagedRegion.hugePageByteCount
        let byteCount = (capacity + page - 1) / page * page + page
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard let address = mmap(nil, byteCount, PROT_NONE, flags, -1, 0), address != MAP_FAILED else {
            throw .settings("no address space for \(byteCount) bytes of '\(name)': \(FileProblem.text(errno))")
        }
        reserved = UnsafeMutableRawBufferPointer(start: address, count: byteCount)
        base = address + (page - Int(bitPattern: address) % page) % page
        backed = Atomic(recorded)
        try mapRecorded(recorded)
    }

    private func mapRecorded(_ byteCount: Int) throws(StorageError) {
        let stages = (byteCount + place.stageByteCount - 1) / place.stageByteCount
        for stage in 0..<stages {
            let reason = growing.withLock { attach(stage, &$0, isNew: false) }
            if reason != 0 { throw .device(errno: reason, operation: "map \(path(stage))") }
        }
    }

    deinit {
        retire()
        munmap(reserved.baseAddress, reserved.count)
    }

    /// Nobody grows it from now on. Any thread.
    func retire() {
        growing.withLock { growth in
            if growth.lastDescriptor >= 0 { close(growth.lastDescriptor) }
            growth.lastDescriptor = -1
            growth.isRetired = true
        }
    }

    var backedByteCount: Int { backed.load(ordering: .acquiring) }
    var needsPersist: Bool { place.medium.kind == .pmem }

    func persist(offset: Int, byteCount: Int) {
        guard needsPersist else { return }
        assert(offset >= 0 && byteCount > 0 && offset + byteCount <= backedByteCount)
        persistBytes(base + offset, byteCount)
    }

    // ---- Growth ----

    func grow(to byteCount: Int) -> Bool {
        if byteCount <= backedByteCount { return true }
        guard byteCount <= capacity else { return false }
        let step = StagedRegion.stepByteCount
        let wanted = min((byteCount + step - 1) / step * step, capacity)
        while backedByteCount < byteCount {
            let hasGrown = growing.withLock { growth in
                if backedByteCount >= byteCount { return true }
                guard !growth.isRetired else { return false }
                let reason = growPiece(to: wanted, &growth)
                if reason != 0 { warnOnce(reason, &growth) } else { growth.hasWarned = false }
                return reason == 0
            }
            guard hasGrown else { return false }
        }
        return true
    }

    /// Grows the last stage, or a new one, by a piece at most.
    private func growPiece(to wanted: Int, _ growth: inout Growth) -> Int32 {
        let now = backed.load(ordering: .relaxed)
        let stage = now / place.stageByteCount
        precondition(stage <= growth.stageCount, "stages are mapped in order")
        if stage == growth.stageCount {
            let reason = attach(stage, &growth, isNew: true)
            if reason != 0 { return reason }
        }
        let begin = stage * place.stageByteCount
        let end = min(wanted, begin + place.stageByteCount, now + StagedRegion.pieceByteCount)
        var reason = place.medium.extend(growth.lastDescriptor, at: base + begin, from: now - begin, to: end - begin)
        if reason == 0 { reason = record(end) }
        if reason == 0 { backed.store(end, ordering: .releasing) }
        return reason
    }

    private func record(_ byteCount: Int) -> Int32 {
        place.header.change { header in
            if let number = header.regions.firstIndex(where: { $0.name == name }) {
                header.regions[number].backedByteCount = byteCount
            } else {
                header.regions.append(SegmentHeader.Region(name: name, backedByteCount: byteCount))
            }
        }
    }

    /// Where a stage lies.
    static func path(_ name: String, _ stage: Int, _ folders: [String]) -> String {
        folders[stage % folders.count] + "/\(name).\(stage)"
    }

    private func path(_ stage: Int) -> String { StagedRegion.path(name, stage, place.folders) }

    /// Maps a stage's file, and makes it if it `isNew`.
    private func attach(_ stage: Int, _ growth: inout Growth, isNew: Bool) -> Int32 {
        let path = path(stage)
        let descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (isNew ? O_CREAT : 0), 0o600)
        guard descriptor >= 0 else { return errno }
        var reason: Int32 = 0
        if isNew, needsPersist { reason = FileProblem.flushDirectory(place.folders[stage % place.folders.count]) }
        let begin = stage * place.stageByteCount
        let byteCount = min(place.stageByteCount, (capacity - begin + 4095) & ~4095)
        if reason == 0 { reason = place.medium.map(descriptor, at: base + begin, byteCount: byteCount) }
        guard reason == 0 else {
            close(descriptor)
            return reason
        }
        if growth.lastDescriptor >= 0 { close(growth.lastDescriptor) }
        growth.lastDescriptor = descriptor
        growth.stageCount = stage + 1
        return 0
    }

    private func warnOnce(_ reason: Int32, _ growth: inout Growth) {
        guard !growth.hasWarned else { return }
        growth.hasWarned = true
        let stage = backedByteCount / place.stageByteCount
        let why = reason == ENOSPC || reason == EDQUOT ? "the file system is full: make it larger" : FileProblem.text(reason)
        place.warn("\(path(stage)) cannot grow beyond \(backedByteCount % place.stageByteCount) bytes: \(why)")
    }
}
