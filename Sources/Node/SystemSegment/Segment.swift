// Shared or persistent memory of this machine for one namespace: a directory on each mount with a header and the stage
// files of the regions. Invariants:
// 1. The directories are locked from `open` to `close`, or until this object is gone.
// 2. `coldReason` is not nil exactly as long as what was found cannot be gone on with; nothing but `startCold` happens then.
// 3. Files of regions that the header does not know hold nothing that counts: `startCold` changes the header before it
//    removes them.
// 4. The header changes in one step, so the process may die, and in persistent memory power may fail, at any point.
package import Base
internal import Glibc
package import Storage

/// See the invariants above. Calls come from one thread at a time; its regions may be used by any.
package final class Segment: KeptMemory, @unchecked Sendable {
    /// What the memory is.
    package enum Kind: String, Sendable {
        /// Files on tmpfs: outlives the process, not the machine.
        case shmem
        /// Files on a DAX file system: outlives a loss of power.
        case pmem
    }

    /// What a namespace wants.
    package struct Spec: Sendable {
        /// Shared or persistent.
        package var kind: Kind
        /// Directories, absolute; stage n lies in the n-th, counted around.
        package var mounts: [String]
        /// `index-stage-size`, bytes in a stage file; a multiple of 2 MiB.
        package var stageByteCount = 1 << 30
        /// Whose it is.
        package var namespace: String
        /// The node: its work directory, absolute.
        package var owner: String
        /// Name of the storage engine.
        package var backend: String
        /// A number that is another one whenever the index or the backend keeps its memory in another way.
        package var layout: UInt64
        /// Take files for persistent memory whose content does not last when power fails.
        package var isForced = Segment.isForcedByEnvironment
        /// Takes lines for the operator, `{namespace}` at their front. Any thread.
        package var log: @Sendable (String) -> Void
        /// The same for what he has to do something about.
        package var warn: @Sendable (String) -> Void

        /// Joins the parts that have no default.
        package init(
            kind: Kind, mounts: [String], namespace: String, owner: String, backend: String, layout: UInt64,
            log: @escaping @Sendable (String) -> Void, warn: @escaping @Sendable (String) -> Void
        ) {
            self.kind = kind
            self.mounts = mounts
            self.namespace = namespace
            self.owner = owner
            self.backend = backend
            self.layout = layout
            self.log = log
            self.warn = warn
        }
    }

    /// Whether PMEM_IS_PMEM_FORCE=1, libpmem's own switch, is set.
    package static var isForcedByEnvironment: Bool {
        getenv("PMEM_IS_PMEM_FORCE").map { String(cString: $0) } == "1"
    }

    /// Where header and first stages lie.
    package var path: String { folders.paths[0] }
    /// Whether what is persisted outlives a loss of power.
    package let isDurable: Bool
    /// Why there is nothing to go on from, one sentence; nil if there is, and after `startCold`.
    package private(set) var coldReason: String?
    private let spec: Spec
    private let header: SegmentHeaderFile
    private var folders: SegmentFolders
    private var isFresh: Bool
    /// What was found was complete and its process had not closed it: it may have had what no medium has.
    private var isLeft: Bool
    private var isOpen = true
    /// Nothing has happened since everything was forgotten.
    private var isForgotten = false
    private var regions: [(name: String, region: StagedRegion)] = []

    /// Takes what is there, or makes it; what an older segment holds is never a reason not to start. May block for seconds
    /// if the process before has just been killed.
    /// - Throws: `settings`, `medium`: in use by another process, or a mount that cannot be used; for the operator.
    package static func open(_ spec: Spec) throws(StorageError) -> Segment {
        try check(spec)
        let folders = try SegmentFolders(spec)
        do throws(StorageError) {
            let isDurable = try checkDurable(spec, folders.paths)
            let found = try SegmentHeaderFile.read(folders.paths[0])
            return Segment(spec, folders, isDurable: isDurable, found)
        } catch {
            folders.undo()
            throw error
        }
    }

    private init(_ spec: Spec, _ folders: SegmentFolders, isDurable: Bool, _ found: SegmentHeaderFile.Found) {
        self.spec = spec
        self.folders = folders
        self.isDurable = isDurable
        let wanted = SegmentHeader(spec)
        isFresh = found == .absent && !folders.hasRegions
        isLeft = if case .copy(.header(let header)) = found { header.isComplete && !header.isClosed } else { false }
        let (stored, problem) = Segment.judge(found, wanted, spec, folders.paths)
        coldReason = found == .absent && !isFresh ? "its header is missing" : problem
        header = SegmentHeaderFile(
            folder: folders.paths[0], header: problem == nil ? stored ?? wanted : wanted, isStored: problem == nil)
    }

    private static func check(_ spec: Spec) throws(StorageError) {
        precondition(!spec.namespace.isEmpty && !spec.namespace.utf8.contains(UInt8(ascii: "/")))
        let page = StagedRegion.hugePageByteCount
        guard spec.stageByteCount > 0, spec.stageByteCount % page == 0 else {
            throw .settings("index-stage-size \(spec.stageByteCount): it has to be a multiple of \(page) bytes")
        }
        guard let first = spec.mounts.first(where: { !$0.hasPrefix("/") }) else {
            guard !spec.mounts.isEmpty else { throw .settings("index-type \(spec.kind) needs a mount") }
            guard Set(spec.mounts).count == spec.mounts.count else {
                throw .settings("index-type \(spec.kind): one mount is named twice")
            }
            return
        }
        throw .settings("mount \(first): write it from / on")
    }

    /// Whether persistent memory is what it says.
    private static func checkDurable(_ spec: Spec, _ folders: [String]) throws(StorageError) -> Bool {
        guard spec.kind == .pmem else { return false }
        let medium = SegmentMedium(kind: spec.kind, isForced: spec.isForced)
        var isDurable = true
        for (mount, folder) in zip(spec.mounts, folders) where !(try medium.isDurable(folder)) {
            guard spec.isForced else {
                throw .medium("\(mount) is not on persistent memory: mount the ext4 or XFS of a pmem device there, with -o"
                    + " dax; or take index-type shmem; or, for tests only, set PMEM_IS_PMEM_FORCE=1")
            }
            isDurable = false
            spec.warn("{\(spec.namespace)} PMEM_IS_PMEM_FORCE is set and \(mount) is not on a DAX file system: what is"
                + " written there is NOT durable when power fails")
        }
        return isDurable
    }

    /// The header to go on with, or why not.
    private static func judge(
        _ found: SegmentHeaderFile.Found, _ wanted: SegmentHeader, _ spec: Spec, _ folders: [String]
    ) -> (SegmentHeader?, String?) {
        switch found {
        case .absent: return (nil, "there is no segment yet")
        case .copy(.nothing): return (nil, "its header is damaged")
        case .copy(.otherFormat(let format)):
            return (nil, "its header has format \(format), this version of Apus uses format \(SegmentHeader.format)")
        case .copy(.header(let header)):
            return (header, header.difference(from: wanted) ?? missing(header, spec, folders))
        }
    }

    /// What the files of the regions lack.
    private static func missing(_ header: SegmentHeader, _ spec: Spec, _ folders: [String]) -> String? {
        for region in header.regions {
            for begin in stride(from: 0, to: region.backedByteCount, by: spec.stageByteCount) {
                let stage = begin / spec.stageByteCount
                let path = StagedRegion.path(region.name, stage, folders)
                let byteCount = min(spec.stageByteCount, region.backedByteCount - begin)
                var file = stat()
                guard lstat(path, &file) == 0, file.st_mode & S_IFMT == S_IFREG else { return "\(path) is missing" }
                // A file with holes would be found out by touching them when the medium is full.
                guard file.st_size >= byteCount, file.st_blocks * 512 >= byteCount else {
                    return "\(path) is shorter than the \(byteCount) bytes that it had"
                }
            }
        }
        return nil
    }

    // ---- KeptMemory ----

    package var name: String { spec.kind.rawValue }

    package var sessionKeys: [UInt64] {
        let header = header.current
        return coldReason == nil && header.isComplete ? header.keys : []
    }

    package var wasClosed: Bool { coldReason == nil && header.current.isClosed }

    package func startCold(because reason: String) throws(StorageError) {
        guard isOpen else { throw .closed }
        guard !isForgotten else { return }
        if isFresh {
            spec.log("{\(spec.namespace)} index-type \(spec.kind): a new segment in \(path)")
        } else {
            let loss = isLeft ? "; what the killed process had not written to its medium is lost" : ""
            spec.warn("{\(spec.namespace)} cold start: \(coldReason ?? reason)\(loss)")
        }
        // Who still holds a region of before keeps its bytes, but not its files.
        for (_, region) in regions { region.retire() }
        regions = []
        try change("forget what was in") { header in
            header.isComplete = false
            header.isClosed = false
            header.keys = []
            header.regions = []
        }
        try folders.removeRegions()
        coldReason = nil
        isFresh = false
        isLeft = false
        isForgotten = true
    }

    package func beginSession(_ key: UInt64) throws(StorageError) {
        if let coldReason { try startCold(because: coldReason) }
        isForgotten = false
        try change("write the session to") { header in
            if !header.isComplete { header.keys = [] }
            // Devices that no session has reached since have the oldest key, others one of the newest: one in the middle
            // goes. If a device should have it after all, the start is a cold one.
            if header.keys.count == SegmentHeader.keysMax { header.keys.remove(at: 1) }
            header.keys.append(key)
            header.isClosed = false
        }
    }

    package func sessionBegan() throws(StorageError) {
        try change("write the session to") { $0.keys = Array($0.keys.suffix(1)) }
    }

    package func region(_ name: String, capacity: Int) throws(StorageError) -> any MemoryRegion {
        precondition(coldReason == nil, "a session comes first")
        precondition(capacity > 0 && SegmentHeader.isRegionName(name))
        guard isOpen else { throw .closed }
        if let known = regions.first(where: { $0.name == name }) { return known.region }
        precondition(regions.count < SegmentHeader.regionsMax, "that many regions fit into a header")
        let place = StagedRegion.Place(
            medium: SegmentMedium(kind: spec.kind, isForced: spec.isForced), folders: folders.paths,
            stageByteCount: spec.stageByteCount, header: header,
            warn: { [spec] in spec.warn("{\(spec.namespace)} \($0)") })
        let region = try StagedRegion(name, capacity: capacity, place)
        regions.append((name, region))
        return region
    }

    package func complete() throws(StorageError) { try change("complete") { $0.isComplete = true } }

    package func close(isClean: Bool) {
        guard isOpen else { return }
        // What was never begun stays what it is.
        if coldReason == nil {
            let reason = header.change { $0.isClosed = isClean }
            if reason != 0 { spec.warn("{\(spec.namespace)} cannot close \(path): \(FileProblem.text(reason))") }
        }
        for (_, region) in regions { region.retire() }
        regions = []
        isOpen = false
        folders.unlock()
    }

    /// Closes it and removes it from its medium.
    /// - Throws: `medium`.
    package func remove() throws(StorageError) {
        guard isOpen else { throw .closed }
        for (_, region) in regions { region.retire() }
        regions = []
        isOpen = false
        defer { folders.unlock() }
        for folder in folders.paths { try SegmentFolders.remove(folder) }
    }

    private func change(_ verb: String, _ body: (inout SegmentHeader) -> Void) throws(StorageError) {
        guard isOpen else { throw .closed }
        let reason = header.change(body)
        if reason != 0 { throw .device(errno: reason, operation: "\(verb) \(path)/header") }
    }
}
