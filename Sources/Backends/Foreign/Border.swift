// What crosses the border between Swift and a plugin: errors, locations, images, text. All that a plugin says is
// checked here; what breaks the contract becomes an error and a line in the log.
internal import CBackend
internal import Storage
internal import Synchronization

/// One open namespace of one plugin, as far as its backend and all its shards need it. Any thread.
final class Border: Sendable {
    /// Different breaches that are logged; a plugin that finds new ones for ever does not fill the log.
    private static let breachesMax = 32
    let name: String
    let capabilities: Capabilities
    let limits: BackendLimits
    let log: @Sendable (String) -> Void
    private let imageSizeMax: Int
    private let logged = Mutex<[String]>([])

    init(_ name: String, _ capabilities: Capabilities, _ limits: BackendLimits, log: @escaping @Sendable (String) -> Void) {
        self.name = name
        self.capabilities = capabilities
        self.limits = limits
        self.log = log
        imageSizeMax = Envelope.storedByteCount(limits.imageSizeMax)
    }

    /// The plugin did what the contract does not allow: logged the first time, and the error that the operation ends
    /// with.
    func breach(_ what: String) -> StorageError {
        let isNew = logged.withLock { logged in
            guard logged.count < Border.breachesMax, !logged.contains(what) else { return false }
            logged.append(what)
            return true
        }
        if isNew { log("plugin '\(name)' broke the contract: \(what) (said once)") }
        return .unsupported("plugin '\(name)' broke the contract: \(what)")
    }

    /// The error behind the answer `status` of the slot `slot`.
    func error(_ status: Int32, _ failure: apus_error, _ slot: String, at location: UInt64 = 0) -> StorageError {
        switch status {
        case APUS_OUT_OF_SPACE: return .outOfSpace
        case APUS_OVERLOADED: return .overloaded
        case APUS_TOO_LARGE: return .tooLarge(limitBytes: Int(clamping: failure.limit))
        case APUS_CORRUPT: return .corrupt(Location(rawValue: location))
        case APUS_DEVICE:
            return .device(errno: failure.number, operation: Border.text(failure) ?? "\(slot) of plugin '\(name)'")
        case APUS_CLOSED: return .closed
        case APUS_SETTINGS: return .settings(Border.text(failure) ?? "plugin '\(name)' does not accept the settings")
        case APUS_MEDIUM: return .medium(Border.text(failure) ?? "plugin '\(name)' does not accept the medium")
        case APUS_UNSUPPORTED: return .unsupported(Border.text(failure) ?? "\(slot) of plugin '\(name)'")
        default: return breach("\(slot) answered \(status)")
        }
    }

    /// A location as the index can hold it.
    /// - Throws: `unsupported` if it has more bits than the plugin said.
    func location(_ bits: UInt64, _ slot: String) throws(StorageError) -> Location {
        guard bits >> UInt64(limits.locationBits) == 0 else {
            throw breach("\(slot) gave a location of more than \(limits.locationBits) bits")
        }
        return Location(rawValue: bits)
    }

    /// An image that the plugin lends.
    /// - Throws: `unsupported` if it is none.
    func image(_ image: apus_bytes, _ slot: String) throws(StorageError) -> UnsafeRawBufferPointer {
        guard let bytes = image.bytes, (1...UInt64(imageSizeMax)).contains(image.size) else {
            throw breach("\(slot) gave an image of \(image.size) bytes, or none")
        }
        return UnsafeRawBufferPointer(start: bytes, count: Int(image.size))
    }

    /// The text of an error, on one line; nil if there is none.
    private static func text(_ failure: apus_error) -> String? {
        withUnsafeBytes(of: failure.text) { bytes in
            let line = bytes.prefix { $0 != 0 }.map { $0 < 32 ? UInt8(ascii: " ") : $0 }
            return line.isEmpty ? nil : String(decoding: line, as: UTF8.self)
        }
    }
}

/// Zero-terminated copies of texts for the time of a call.
final class CTexts {
    private var all: [UnsafeMutableBufferPointer<CChar>] = []

    deinit { for text in all { text.deallocate() } }

    /// A copy that lives as long as this object.
    func add(_ text: String) -> UnsafePointer<CChar> {
        let bytes = text.utf8CString
        let copy = UnsafeMutableBufferPointer<CChar>.allocate(capacity: bytes.count)
        _ = copy.initialize(from: bytes)
        all.append(copy)
        return UnsafePointer(copy.baseAddress!)
    }
}
