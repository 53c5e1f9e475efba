// Looks at everything that is configured as a file and says what it is, before anything is stored.
internal import Base
internal import Storage

/// What one configured path turned out to be.
struct FoundFile {
    enum Verdict {
        /// Cannot be opened; a sentence that goes on from the path.
        case unreachable(String)
        /// Nothing was ever stored there, or a set was begun there and never made.
        case blank
        /// Of a set; perhaps not of ours.
        case member(PmemSuperblock)
        /// Cannot be used; sentences without the path.
        case wrong([String])
    }

    let path: String
    /// Place in the configuration.
    let order: Int
    var verdict: Verdict
    /// Which of the two places holds the superblock.
    var copy = PmemSuperblock.copies - 1
    var file: PmemFile?
    /// Bytes; what it will have for a file that is not there yet.
    var byteCount = 0

    var superblock: PmemSuperblock? {
        if case .member(let superblock) = verdict { superblock } else { nil }
    }
}

/// Opens paths and reads what stands at the front.
struct PmemSurvey {
    /// Bytes that must be zeros for a file to count as blank.
    private static let blankSize = 1 << 20
    /// Fewest blocks of a file.
    private static let blocksMin = 16
    let settings: PmemSettings
    let opener: any PmemOpener

    private var shape: PmemShape { settings.shape }
    private var byteCountMin: Int { shape.headSize + PmemSurvey.blocksMin * shape.blockSize }

    /// What is there now. `isLookedAt`: nothing is made, locked or stored.
    func look(isLookedAt: Bool) -> [FoundFile] {
        settings.files.enumerated().map { order, path in
            do throws(PmemOpenError) {
                let file = try opener.open(
                    PmemRequest(path: path, byteCount: settings.fileByteCount, isLookedAt: isLookedAt))
                return judge(path, order, file)
            } catch {
                // The file is made when everything else is known to be good.
                guard isLookedAt, error.isMissing, settings.fileByteCount > 0 else {
                    let hint = error.isMissing && settings.fileByteCount == 0 ? ": with a filesize it would be made" : ""
                    return FoundFile(path: path, order: order, verdict: .unreachable(error.sentence + hint))
                }
                var found = FoundFile(path: path, order: order, verdict: .blank)
                found.byteCount = settings.fileByteCount
                if let problem = sizeProblem(settings.fileByteCount) { found.verdict = .wrong([problem]) }
                return found
            }
        }
    }

    private func sizeProblem(_ byteCount: Int) -> String? {
        guard byteCount < byteCountMin else { return nil }
        return "it has \(byteCount) bytes, and must have at least \(byteCountMin): its head takes \(shape.headSize), and"
            + " \(PmemSurvey.blocksMin) blocks of \(shape.blockSize) are the least"
    }

    private func judge(_ path: String, _ order: Int, _ file: PmemFile) -> FoundFile {
        var found = FoundFile(path: path, order: order, verdict: .blank)
        found.file = file
        found.byteCount = file.region.backedByteCount
        do throws(StorageError) {
            found.verdict = try verdict(file.region, path, &found.copy)
        } catch {
            found.verdict = .wrong([error.text])
        }
        if case .blank = found.verdict, let problem = sizeProblem(found.byteCount) { found.verdict = .wrong([problem]) }
        return found
    }

    private func verdict(
        _ region: any MemoryRegion, _ path: String, _ copy: inout Int
    ) throws(StorageError) -> FoundFile.Verdict {
        let byteCount = region.backedByteCount
        if let problem = sizeProblem(byteCount), byteCount < PmemSuperblock.copies * PmemSuperblock.placeSize {
            return .wrong([problem])
        }
        var newest: PmemSuperblock?
        var isMarked = false
        var refusal: StorageError?
        for number in 0..<PmemSuperblock.copies {
            let place = UnsafeRawPointer(region.base + number * PmemSuperblock.placeSize)
            isMarked = isMarked || PmemSuperblock.isMarked(place)
            do throws(StorageError) {
                guard let superblock = try PmemSuperblock(place), superblock.version > newest?.version ?? 0
                else { continue }
                newest = superblock
                copy = number
            } catch {
                refusal = error
            }
        }
        if let newest { return .member(newest) }
        if let refusal { throw refusal }
        let wasNeverFinished = PmemSuperblock.isBegun(region.base)
            && isZero(region, PmemSuperblock.placeSize..<2 * PmemSuperblock.placeSize)
        if wasNeverFinished { return .blank }
        if isMarked {
            return .wrong(["both of its superblocks are damaged: it was a file of Apus, and cannot be told whose any more;"
                + " restore it, or remove it"])
        }
        if isZero(region, 0..<min(byteCount, PmemSurvey.blankSize) / 8 * 8) { return .blank }
        return .wrong(["it holds data that was not written by Apus: if nobody wants it any more, remove it"])
    }

    private func isZero(_ region: any MemoryRegion, _ range: Range<Int>) -> Bool {
        stride(from: range.lowerBound, to: range.upperBound, by: 8).allSatisfy {
            region.base.load(fromByteOffset: $0, as: UInt64.self) == 0
        }
    }
}
