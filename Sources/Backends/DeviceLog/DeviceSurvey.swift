// Looks at everything that is configured as a device and says what it is, before anything is written.
internal import Base
internal import Device
internal import Storage

/// What one configured path turned out to be.
struct FoundDevice {
    enum Verdict {
        /// Cannot be opened; a sentence without the path.
        case unreachable(String, isMissing: Bool)
        /// Nothing was ever written there, or a set was begun there and never made.
        case blank
        /// Of a device set; perhaps not of ours.
        case member(Superblock)
        /// Cannot be used; sentences without the path.
        case wrong([String])
    }

    let path: String
    /// Place in the configuration.
    let order: Int
    let verdict: Verdict
    /// Which of the two places holds the superblock.
    var copy = HeadLayout.copies - 1
    var device: (any BlockDevice)?
    /// Bytes; 0 for a file that is not there yet.
    var byteCount = 0

    var superblock: Superblock? {
        if case .member(let superblock) = verdict { superblock } else { nil }
    }
}

/// Opens paths and reads what stands at the front.
struct DeviceSurvey {
    /// Bytes that must be zeros for a device to count as blank.
    private static let blankSize = 1 << 20
    let settings: LogSettings
    let opener: any DeviceOpener

    private var shape: LogShape { settings.shape }
    var paths: [String] { settings.devices.isEmpty ? settings.files : settings.devices }
    var isOnBlockDevices: Bool { !settings.devices.isEmpty }

    /// Smallest size of a device in bytes: the head, and blocks for what is appended, moved and held back.
    var byteCountMin: Int { shape.headSize + DeviceSurvey.blocksMin * shape.blockSize }
    private static let blocksMin = 6

    /// What is there now. `isLookedAt`: nothing is made, locked or written.
    func look(isLookedAt: Bool) -> [FoundDevice] {
        paths.enumerated().map { order, path in
            let request = DeviceRequest(
                path: path, isBlockDevice: isOnBlockDevices, fileByteCount: settings.fileByteCount,
                readsThroughPageCache: settings.readsThroughPageCache, isLookedAt: isLookedAt)
            do throws(DeviceOpenError) {
                return judge(path, order, try opener.open(request))
            } catch {
                // The file is made when everything else is known to be good.
                let isMade = isLookedAt && error.isMissing && !isOnBlockDevices && settings.fileByteCount > 0
                let verdict: FoundDevice.Verdict = isMade && sizeProblem(settings.fileByteCount) == nil
                    ? .blank : isMade ? .wrong([sizeProblem(settings.fileByteCount)!])
                    : .unreachable(error.sentence, isMissing: error.isMissing)
                return FoundDevice(path: path, order: order, verdict: verdict)
            }
        }
    }

    private func sizeProblem(_ byteCount: Int) -> String? {
        guard byteCount < byteCountMin else { return nil }
        return "it has \(byteCount) bytes, and must have at least \(byteCountMin): its head takes \(shape.headSize), and"
            + " \(DeviceSurvey.blocksMin) write blocks of \(shape.blockSize) are the least"
    }

    private func judge(_ path: String, _ order: Int, _ device: any BlockDevice) -> FoundDevice {
        let byteCount = device.geometry.byteCount
        var copy = HeadLayout.copies - 1
        var verdict: FoundDevice.Verdict
        if shape.flushUnit % device.geometry.sectorSize != 0 {
            verdict = .wrong(["it has sectors of \(device.geometry.sectorSize) bytes; flushes have \(shape.flushUnit)"])
        } else {
            do throws(StorageError) {
                verdict = try self.verdict(device, path, &copy)
            } catch {
                verdict = .wrong([error.text])
            }
        }
        if case .blank = verdict, let problem = sizeProblem(max(byteCount, settings.fileByteCount)) {
            verdict = .wrong([problem])
        }
        var found = FoundDevice(path: path, order: order, verdict: verdict, copy: copy)
        found.device = device
        found.byteCount = byteCount
        return found
    }

    private func verdict(
        _ device: any BlockDevice, _ path: String, _ copy: inout Int
    ) throws(StorageError) -> FoundDevice.Verdict {
        let head = HeadLayout(shape)
        let byteCount = device.geometry.byteCount
        guard byteCount >= HeadLayout.copies * head.placeSize else {
            return .wrong(["it has \(byteCount) bytes, and must have at least \(byteCountMin)"])
        }
        let channel = try ControlChannel(device, path: path)
        var newest: Superblock?
        var isMarked = false
        var refusal: StorageError?
        for number in 0..<HeadLayout.copies {
            let place = try channel.read(head.superblockOffset(number), byteCount: head.placeSize)
            isMarked = isMarked || Superblock.isMarked(place.base)
            do throws(StorageError) {
                guard let superblock = try Superblock(place.base), superblock.version > newest?.version ?? 0
                else { continue }
                newest = superblock
                copy = number
            } catch {
                refusal = error
            }
        }
        if let newest { return .member(newest) }
        if let refusal { throw refusal }
        if isMarked {
            return .wrong(["both of its superblocks are damaged: it was a device of Apus, and cannot be told whose"
                + " any more; restore it, or clear it with `apus wipe \(path)`"])
        }
        let size = min(byteCount, shape.headSize, DeviceSurvey.blankSize) / head.placeSize * head.placeSize
        let front = try channel.read(0, byteCount: size)
        if DeviceSurvey.isZero(front.view) { return .blank }
        return .wrong(["it holds data that was not written by Apus: if nobody wants it any more, clear it with"
            + " `apus wipe \(path)`"])
    }

    static func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
        stride(from: 0, to: bytes.count, by: 8).allSatisfy { bytes.load(fromByteOffset: $0, as: UInt64.self) == 0 }
    }
}
