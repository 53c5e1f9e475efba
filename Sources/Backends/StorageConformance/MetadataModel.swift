// What may be loaded of the namespace's blob and the partitions' metadata. Invariants:
// 1. `values` holds what was stored, oldest first, from the last value that must outlast a crash on; it is never empty.
// 2. `isSure` is false if the last store failed: then it may have taken place or not.

/// One thing that is stored as a whole.
struct StoredValue<Value> {
    private(set) var values: [Value]
    private(set) var isSure = true

    init(_ first: Value) { values = [first] }

    var last: Value { values[values.count - 1] }

    mutating func began(_ value: Value) {
        values.append(value)
        isSure = false
    }

    mutating func ended(isDurable: Bool) {
        isSure = true
        if isDurable { values = [last] }
    }

    mutating func found(_ value: Value) {
        values = [value]
        isSure = true
    }

    /// What may be loaded: all of it after a crash, else only the last.
    func allowed(after ending: Ending?) -> [Value] {
        if case .crash = ending { return values }
        return isSure ? [last] : values
    }
}

struct MetadataModel {
    var blob = StoredValue<[UInt8]>([])
    var partitions = StoredValue<[[UInt8]]>([])

    /// Why what was loaded is wrong, while it is open or after its end; nil if it is right.
    func problem(_ loadedBlob: [UInt8], _ loaded: [[UInt8]], after ending: Ending?) -> String? {
        if !blob.allowed(after: ending).contains(loadedBlob) {
            return "the namespace's blob of \(loadedBlob.count) bytes was never stored or is too old;"
                + " the last stored has \(blob.last.count) bytes"
        }
        guard !partitions.allowed(after: ending).contains(where: { MetadataModel.isSame($0, loaded) }) else { return nil }
        return "the partitions' metadata (\(loaded.count) of them) is neither the old nor the new\(mixture(loaded))"
    }

    private func mixture(_ loaded: [[UInt8]]) -> String {
        guard partitions.last.count == loaded.count else { return "" }
        let fresh = zip(loaded, partitions.last).count { $0 == $1 }
        return ": \(fresh) of \(loaded.count) are as last stored"
    }

    /// Metadata that was never stored may come as no partitions, or as partitions that are all empty.
    private static func isSame(_ left: [[UInt8]], _ right: [[UInt8]]) -> Bool {
        left == right || left.allSatisfy(\.isEmpty) && right.allSatisfy(\.isEmpty)
    }
}
