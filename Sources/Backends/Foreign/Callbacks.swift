// What a plugin calls back: the visitor of a scan, and the sink of what it loads. Each runs on the thread of the call
// that it was given to, and works on a struct on that call's stack.
internal import Base
internal import CBackend
internal import Storage

/// One scan under way.
struct Scan {
    let visit: (ScannedImage) -> ScanDecision
    let border: Border
    private(set) var damaged = 0
    private var isStopped = false

    init(visit: @escaping (ScannedImage) -> ScanDecision, border: Border) {
        self.visit = visit
        self.border = border
    }

    /// The `apus_visit` that goes with a pointer to a `Scan`.
    static let visitImage: apus_visit = { context, image, replaced in
        guard let context, let image else { return APUS_STOP }
        return context.assumingMemoryBound(to: Scan.self).pointee.answer(image.pointee, replaced)
    }

    private mutating func answer(
        _ scanned: apus_scanned, _ replaced: UnsafeMutablePointer<apus_replaced>?
    ) -> Int32 {
        if isStopped {
            _ = border.breach("scan went on after APUS_STOP")
            return APUS_STOP
        }
        guard let image = whole(scanned) else {
            damaged += 1
            return border.capabilities.contains(.keyed) ? APUS_LIVE : APUS_STALE
        }
        switch visit(image) {
        case .live: return APUS_LIVE
        case .stale: return APUS_STALE
        case .stop:
            isStopped = true
            return APUS_STOP
        case .replaces(let location, let byteCount):
            guard let replaced else {
                _ = border.breach("scan gave no room for what is replaced")
                return APUS_LIVE
            }
            replaced.pointee = apus_replaced(location: location.rawValue, size: UInt64(byteCount))
            return APUS_REPLACES
        }
    }

    /// The image if it is the one that was appended for this digest, to the last bit.
    private func whole(_ scanned: apus_scanned) -> ScannedImage? {
        guard let digestBytes = scanned.digest, let image = try? border.image(scanned.image, "scan"),
            let location = try? border.location(scanned.location, "scan")
        else { return nil }
        let digest = Digest(digestBytes)
        guard Envelope.fits(image, digest: digest), Envelope.checksumFits(image) else { return nil }
        return ScannedImage(digest: digest, location: location, image: image, sequence: scanned.sequence)
    }
}

/// What a plugin hands over while it loads.
struct Sink {
    let partsMax: Int
    let sizeMax: Int
    private(set) var parts: [[UInt8]] = []
    private(set) var isWithinLimits = true

    init(partsMax: Int, sizeMax: Int) {
        self.partsMax = partsMax
        self.sizeMax = sizeMax
    }

    /// The `apus_sink` that goes with a pointer to a `Sink`.
    static let take: apus_sink = { context, bytes, size in
        context?.assumingMemoryBound(to: Sink.self).pointee.add(bytes, size)
    }

    private mutating func add(_ bytes: UnsafeRawPointer?, _ size: UInt64) {
        guard parts.count < partsMax, size <= UInt64(sizeMax), bytes != nil || size == 0 else {
            isWithinLimits = false
            return
        }
        parts.append(Array(UnsafeRawBufferPointer(start: bytes, count: Int(size))))
    }
}

extension Border {
    /// Pressure in the words of the contract.
    func pressure(_ bits: UInt32) -> Pressure {
        if let pressure = UInt8(exactly: bits).flatMap({ Pressure(rawValue: $0) }) { return pressure }
        _ = breach("pressure is \(bits)")
        return .none
    }

    /// Figures in the words of the contract; details that could not stand in an answer to an operator are left out.
    func statistics(_ figures: apus_statistics) -> BackendStatistics {
        var statistics = BackendStatistics()
        statistics.totalBytes = figures.total_bytes
        statistics.usedBytes = figures.used_bytes
        statistics.availableBytes = figures.available_bytes
        statistics.allocatedBytes = figures.allocated_bytes
        statistics.movedImages = figures.moved_images
        statistics.compactedBlocks = figures.compacted_blocks
        statistics.pressure = pressure(figures.pressure)
        if figures.detail_count > UInt32(APUS_DETAILS_MAX) { _ = breach("statistics gave \(figures.detail_count) details") }
        withUnsafeBytes(of: figures.details) { bytes in
            for detail in bytes.bindMemory(to: apus_detail.self).prefix(Int(figures.detail_count)) {
                let name = withUnsafeBytes(of: detail.name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
                let value = withUnsafeBytes(of: detail.value) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
                if SettingText.isWord(name), Border.isPlain(value) { statistics.details.append((name, value)) }
            }
        }
        return statistics
    }

    private static func isPlain(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != UInt8(ascii: ";") && $0 != UInt8(ascii: "=") }
    }
}
