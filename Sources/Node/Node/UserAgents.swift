internal import CBase
internal import Wire

/// What clients call themselves, by connection. Any thread.
final class UserAgents: @unchecked Sendable {
    /// A connection of one reactor.
    struct Key: Hashable {
        let reactor: Int
        let connection: UInt64
    }
    /// Longest name in bytes, decoded.
    private static let sizeMax = 64
    private let word: UnsafeMutablePointer<UInt32>
    private var names: [Key: String] = [:]
    /// How many connections have each name.
    private var counts: [String: Int] = [:]

    init() {
        word = .allocate(capacity: 1)
        word.initialize(to: 0)
    }

    deinit { word.deallocate() }

    /// Notes the base64 name of a connection; false if it has one already.
    func set(_ key: Key, _ name: String) -> Bool {
        apus_lock(word)
        defer { apus_unlock(word) }
        guard names[key] == nil else { return false }
        names[key] = name
        counts[name, default: 0] += 1
        return true
    }

    /// Whether a base64 text is short enough.
    static func fits(_ name: String) -> Bool { !name.isEmpty && name.utf8.count <= (sizeMax + 2) / 3 * 4 }

    func closed(_ key: Key) {
        apus_lock(word)
        defer { apus_unlock(word) }
        guard let name = names.removeValue(forKey: key), let count = counts[name] else { return }
        counts[name] = count > 1 ? count - 1 : nil
    }

    /// `user-agent=<b64>:count=<n>` by name; connections without one count as "unknown".
    func text(connections: Int) -> String {
        apus_lock(word)
        let known = counts
        let total = names.count
        apus_unlock(word)
        var counts = known.map { (name: $0.key, count: $0.value) }.sorted { $0.name < $1.name }
        let unknown = connections - total
        if unknown > 0 { counts.append((Base64.encode(Array("unknown".utf8)), unknown)) }
        return counts.map { "user-agent=\($0.name):count=\($0.count)" }.joined(separator: ";")
    }
}
