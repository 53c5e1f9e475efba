// From what was found to a device set, or to all reasons why there is none.
internal import Base
internal import Storage

/// What an opening is going to do.
struct DevicePlan {
    /// Devices of the set that are there, by slot.
    let members: [FoundDevice]
    /// Blank ones, in the order of the configuration.
    let added: [FoundDevice]
    /// Slots of the set so far; 0 if there is none yet.
    let slotCount: Int
    let missingSlots: [Int]
    /// Lines for the log.
    let notes: [String]

    /// - Throws: `medium` with all problems.
    init(
        _ found: [FoundDevice], _ request: OpenRequest, _ settings: LogSettings, formats: ClosedRange<Int>
    ) throws(StorageError) {
        var problems: [String] = []
        var notes: [String] = []
        let joined = found.compactMap { one in one.superblock.flatMap { $0.isJoining ? nil : $0 } }
        let whole = found.filter { DevicePlan.isMember($0, joined) }
        for one in found {
            switch one.verdict {
            case .unreachable(let sentence, let isMissing):
                if isMissing, settings.goesOnWithoutMissing, !whole.isEmpty {
                    notes.append("\(one.path) \(sentence): going on without it (on-missing-device)")
                } else {
                    let canBeMade = isMissing && !settings.files.isEmpty && settings.fileByteCount == 0
                    problems.append("\(one.path) \(sentence)\(canBeMade ? ": with a filesize it would be made" : "")")
                }
            case .blank: break
            case .member(let superblock):
                problems += DevicePlan.problems(one, superblock, request, settings, formats).map { "\(one.path): \($0)" }
            case .wrong(let sentences): problems += sentences.map { "\(one.path): \($0)" }
            }
        }
        members = whole.sorted { $0.superblock!.slot < $1.superblock!.slot }
        let isBlank = { (one: FoundDevice) in if case .blank = one.verdict { true } else { one.superblock != nil } }
        added = found.filter { one in isBlank(one) && !whole.contains { $0.order == one.order } }
        slotCount = joined.map(\.slotCount).max() ?? 0
        problems += DevicePlan.problemsOfSets(members)
        var missing: [Int] = []
        for slot in 0..<slotCount where !members.contains(where: { $0.superblock?.slot == slot }) { missing.append(slot) }
        missingSlots = missing
        if !missing.isEmpty {
            let slots = missing.map { "\($0)" }.joined(separator: ", ")
            let sentence = "slot \(slots) of the set of \(slotCount) devices is not there"
            if settings.goesOnWithoutMissing {
                notes.append("\(sentence): its records are not there either (on-missing-device)")
            } else {
                problems.append("\(sentence): name its device, or say `on-missing-device continue` to go on without its"
                    + " records")
            }
        }
        if slotCount + added.count > LogOpening.devicesMax {
            problems.append("\(slotCount) devices and \(added.count) new ones are more than \(LogOpening.devicesMax)")
        }
        self.notes = notes
        guard problems.isEmpty else { throw .medium(problems.joined(separator: "; ")) }
    }

    /// Why the index cannot go on from `memory`, for the log; nil if it can.
    func coldReason(_ memory: any KeptMemory, startsEmpty: Bool) -> String? {
        let keys = memory.sessionKeys
        if keys.isEmpty { return "there is nothing to go on from" }
        if startsEmpty { return "cold-start-empty forgets all records" }
        if members.isEmpty { return "the device set is new" }
        if let one = added.first { return "\(one.path) is new in the device set" }
        if !missingSlots.isEmpty { return "the device set is not complete" }
        for one in members {
            guard let key = one.superblock?.sessionKey, !keys.contains(key) else { continue }
            return key == 0 ? "\(one.path) was used since without index-type \(memory.name), or a device was given up"
                : "\(one.path) was used since in another session, or was exchanged"
        }
        return nil
    }

    /// Whether a device belongs to its set: it has joined, or another counts it.
    private static func isMember(_ one: FoundDevice, _ joined: [Superblock]) -> Bool {
        guard let superblock = one.superblock else { return false }
        return !superblock.isJoining
            || joined.contains { $0.setIdentity == superblock.setIdentity && $0.slotCount > superblock.slot }
    }

    /// What is wrong with one device of some set.
    private static func problems(
        _ one: FoundDevice, _ superblock: Superblock, _ request: OpenRequest, _ settings: LogSettings,
        _ formats: ClosedRange<Int>
    ) -> [String] {
        var problems = superblock.identity.problems(
            namespace: request.namespace, wanted: request.agreement, formats: formats)
        let shape = settings.shape
        if superblock.blockSize != shape.blockSize || superblock.headSize != shape.headSize
            || superblock.flushUnit != shape.flushUnit {
            problems.append("it was made with write blocks of \(superblock.blockSize) bytes, a head of"
                + " \(superblock.headSize) and flushes of \(superblock.flushUnit); this Apus works with"
                + " \(shape.blockSize), \(shape.headSize) and \(shape.flushUnit)")
        }
        if one.byteCount < superblock.deviceByteCount {
            problems.append("it has \(one.byteCount) bytes, and had \(superblock.deviceByteCount) when it was last used: it"
                + " was truncated, and records are missing")
        }
        return problems
    }

    private static func problemsOfSets(_ members: [FoundDevice]) -> [String] {
        guard let first = members.first?.superblock else { return [] }
        var problems: [String] = []
        for (number, one) in members.enumerated() {
            guard let superblock = one.superblock else { continue }
            if superblock.setIdentity != first.setIdentity {
                problems.append("\(one.path) belongs to another device set than \(members[0].path)")
            } else if let twin = members[..<number].first(where: {
                $0.superblock?.slot == superblock.slot && $0.superblock?.setIdentity == superblock.setIdentity
            }) {
                problems.append("\(twin.path) is slot \(superblock.slot) of the set, and so is \(one.path): one is a copy")
            }
        }
        return problems
    }
}
