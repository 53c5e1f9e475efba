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
        return true
    }

    /// Whether a base64 text is short enough.
    static func fits(_ name: String) -> Bool { !name.isEmpty && name.utf8.count <= (sizeMax + 2) / 3 * 4 }

    func closed(_ key: Key) {
        apus_lock(word)
        names[key] = nil
        apus_unlock(word)
    }

    /// `user-agent=<b64>:count=<n>` by name; connections without one count as "unknown".
    func text(connections: Int) -> String {
        apus_lock(word)
        let known = names.values.sorted()
        apus_unlock(word)
        var counts: [(name: String, count: Int)] = []
        for name in known {
            if counts.last?.name == name { counts[counts.count - 1].count += 1 } else { counts.append((name, 1)) }
        }
        let unknown = connections - known.count
        if unknown > 0 { counts.append((Base64.encode(Array("unknown".utf8)), unknown)) }
        return counts.map { "user-agent=\($0.name):count=\($0.count)" }.joined(separator: ";")
    }
}
