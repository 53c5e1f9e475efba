// From what was found to a set of files, or to all reasons why there is none.
internal import Base
internal import BlockStore
internal import Storage

/// What an opening is going to do.
struct PmemPlan {
    /// Files of the set, by slot.
    let members: [FoundFile]
    /// Blank ones, in the order of the configuration.
    let added: [FoundFile]
    /// Slots of the set so far; 0 if there is none yet.
    let slotCount: Int

    /// - Throws: `medium` with all problems.
    init(_ found: [FoundFile], _ request: OpenRequest, _ settings: PmemSettings) throws(StorageError) {
        var problems: [String] = []
        let joined = found.compactMap { one in one.superblock.flatMap { $0.isJoining ? nil : $0 } }
        let whole = found.filter { PmemPlan.isMember($0, joined) }
        for one in found {
            switch one.verdict {
            case .unreachable(let sentence): problems.append("\(one.path) \(sentence)")
            case .blank: problems += PmemPlan.sizeProblems(one, settings).map { "\(one.path): \($0)" }
            case .member(let superblock):
                problems += PmemPlan.problems(one, superblock, request, settings).map { "\(one.path): \($0)" }
            case .wrong(let sentences): problems += sentences.map { "\(one.path): \($0)" }
            }
        }
        members = whole.sorted { $0.superblock!.slot < $1.superblock!.slot }
        let isBlank = { (one: FoundFile) in if case .blank = one.verdict { true } else { one.superblock != nil } }
        added = found.filter { one in isBlank(one) && !whole.contains { $0.order == one.order } }
        slotCount = joined.map(\.slotCount).max() ?? 0
        problems += PmemPlan.problemsOfSets(members)
        let there = members.compactMap { $0.superblock?.slot }
        let missing = (0..<slotCount).filter { !there.contains($0) }.map { "\($0)" }
        if !missing.isEmpty {
            problems.append("slot \(missing.joined(separator: ", ")) of the set of \(slotCount) files is not there: name its"
                + " file")
        }
        if slotCount + added.count > BlockSpace.slotsMax {
            problems.append("\(slotCount) files and \(added.count) new ones are more than \(BlockSpace.slotsMax)")
        }
        guard problems.isEmpty else { throw .medium(problems.joined(separator: "; ")) }
    }

    /// Whether a file belongs to its set: it has joined, or another counts it.
    private static func isMember(_ one: FoundFile, _ joined: [PmemSuperblock]) -> Bool {
        guard let superblock = one.superblock else { return false }
        return !superblock.isJoining
            || joined.contains { $0.setIdentity == superblock.setIdentity && $0.slotCount > superblock.slot }
    }

    /// What is wrong with one file of some set.
    private static func problems(
        _ one: FoundFile, _ superblock: PmemSuperblock, _ request: OpenRequest, _ settings: PmemSettings
    ) -> [String] {
        let formats = PmemSuperblock.format...PmemSuperblock.format
        var problems = superblock.identity.problems(
            namespace: request.namespace, wanted: request.agreement, formats: formats)
        let shape = settings.shape
        if superblock.blockSize != shape.blockSize || superblock.headSize != shape.headSize {
            problems.append("it was made with blocks of \(superblock.blockSize) bytes and a head of \(superblock.headSize);"
                + " this Apus works with \(shape.blockSize) and \(shape.headSize)")
        }
        if one.byteCount < superblock.fileByteCount {
            problems.append("it has \(one.byteCount) bytes, and had \(superblock.fileByteCount) when it was made: it was"
                + " truncated, and records are missing")
        } else {
            problems += sizeProblems(one, settings)
        }
        return problems
    }

    private static func sizeProblems(_ one: FoundFile, _ settings: PmemSettings) -> [String] {
        guard settings.fileByteCount > 0, one.byteCount != settings.fileByteCount else { return [] }
        return ["it has \(one.byteCount) bytes, and filesize says \(settings.fileByteCount): a file keeps its size; set"
            + " filesize to \(one.byteCount), or leave it out, and name further files for more room"]
    }

    private static func problemsOfSets(_ members: [FoundFile]) -> [String] {
        guard let first = members.first?.superblock else { return [] }
        var problems: [String] = []
        for (number, one) in members.enumerated() {
            guard let superblock = one.superblock else { continue }
            if superblock.setIdentity != first.setIdentity {
                problems.append("\(one.path) belongs to another set of files than \(members[0].path)")
            } else if let twin = members[..<number].first(where: {
                $0.superblock?.slot == superblock.slot && $0.superblock?.setIdentity == superblock.setIdentity
            }) {
                problems.append("\(twin.path) is slot \(superblock.slot) of the set, and so is \(one.path): one is a copy")
            }
        }
        return problems
    }
}
