// What an operator can be told of one record without reading it.
package import Base
internal import Index
internal import Storage

extension Namespace {
    /// Names and values of what the index, and a backend that can say, know of a record; nil if there is none. Any thread.
    package func describe(_ digest: Digest) -> [(String, String)]? {
        partitions.lock(digest.partition)
        let entry = index.find(digest).map { index.entry($0) }
        let isClaimed = partitions.owner(of: digest) != nil
        partitions.unlock(digest.partition)
        guard let entry else { return nil }
        let location = Location(rawValue: entry.location)
        let places = backend.locating?.place(of: location) ?? []
        let setName = entry.setID == 0 ? "" : sets.name(of: entry.setID).text
        return [
            ("digest", "\(digest)"), ("kind", entry.kind == .live ? "record" : "tombstone"),
            ("partition", "\(digest.partition.number)"), ("set", setName),
            ("generation", "\(entry.generation)"), ("last-update-time", Namespace.unixText(entry.lastUpdate)),
            ("void-time", entry.voidTime == 0 ? "never" : "\(UInt64(entry.voidTime) + RecordTime.epochUnixSeconds)"),
            ("size", "\(entry.byteCount)"), ("key-stored", "\(entry.isKeyStored)"), ("write-under-way", "\(isClaimed)"),
            ("backend", agreement.backend), ("location", "\(entry.location)"),
        ] + places.map { ($0.name, $0.value) }
    }

    /// Unix seconds with three decimals.
    private static func unixText(_ milliseconds: UInt64) -> String {
        let fraction = "\(milliseconds % 1000)"
        return "\(milliseconds / 1000 + RecordTime.epochUnixSeconds)."
            + String(repeating: "0", count: 3 - fraction.utf8.count) + fraction
    }
}
