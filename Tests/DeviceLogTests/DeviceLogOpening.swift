import Storage
import Synchronization

/// Lines that a backend has written to the log. Any thread.
final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    func add(_ line: String) { lines.withLock { $0.append(line) } }
    func clear() { lines.withLock { $0 = [] } }
    var all: [String] { lines.withLock { $0 } }
    func contain(_ part: String) -> Bool { all.contains { $0.contains(part) } }
}

/// Opens backends as the node would.
enum DeviceLogOpening {
    static let namespace = "conformance"

    /// `given` comes after the schema's defaults and wins.
    static func open(
        _ descriptor: BackendDescriptor, _ given: [(name: String, value: String)], _ lines: LogLines,
        namespace: String = namespace, memory: (any KeptMemory)? = nil
    ) throws(StorageError) -> any Backend {
        lines.clear()
        let defaults = descriptor.settings.filter { !$0.defaultText.isEmpty }.map { (name: $0.name, value: plain($0)) }
        let agreement = Agreement(
            backend: descriptor.name, format: descriptor.formats.upperBound, capabilities: descriptor.capabilities)
        return try descriptor.open(
            OpenRequest(
                namespace: namespace, settings: BackendSettings(defaults + given), agreement: agreement,
                memory: memory, log: { lines.add($0) }))
    }

    /// A default in bytes or milliseconds.
    private static func plain(_ setting: SettingSchema) -> String {
        let text = setting.defaultText
        guard case .size = setting.kind, let last = text.last, let shift = ["K": 10, "M": 20, "G": 30][last]
        else { return text }
        return "\(UInt64(text.dropLast())! << UInt64(shift))"
    }
}
