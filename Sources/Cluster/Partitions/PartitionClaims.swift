// What a node says of all partitions of a namespace, compact: the different claims once, and which of them each partition
// has. On the wire the numbers are runs, and epochs are a number of a key and the fall of the regime.
package import Base
internal import Fabric

/// What a node says of one partition.
package struct PartitionClaim: Hashable, Sendable {
    /// As in its record.
    package let version: PartitionVersion?
    package let remembered: Epoch
    package let servedCopies: UInt16

    package init(version: PartitionVersion? = nil, remembered: Epoch = Epoch(rawValue: 0), servedCopies: UInt16 = 0) {
        self.version = version
        self.remembered = remembered
        self.servedCopies = servedCopies
    }
}

/// What decides between claims, without a look at lines.
struct ClaimSummary {
    /// Raw value; 0 if there is no copy.
    let epoch: UInt64
    /// The highest epoch that the node knows, raw value.
    let highest: UInt64
    let servedCopies: UInt16
    /// Full 2, sound 1.
    let grade: UInt8

    init(_ claim: PartitionClaim) {
        epoch = claim.version?.epoch.rawValue ?? 0
        highest = max(epoch, claim.remembered.rawValue)
        servedCopies = claim.servedCopies
        grade = claim.version.map { ($0.isFull ? 2 : 0) + ($0.isSound ? 1 : 0) } ?? 0
    }

    static let wholeGrade: UInt8 = 3
}

/// What a node says of all 4096 partitions.
package struct PartitionClaims: Sendable {
    /// The different ones.
    let different: [PartitionClaim]
    /// Which of them each partition has.
    let numbers: [UInt16]
    /// Of each of the different ones.
    let summaries: [ClaimSummary]

    private init(different: [PartitionClaim], numbers: [UInt16]) {
        precondition(numbers.count == PartitionID.count)
        self.different = different
        self.numbers = numbers
        summaries = different.map { ClaimSummary($0) }
    }

    /// Of a node that has and remembers nothing.
    package static let none = PartitionClaims(
        different: [PartitionClaim()], numbers: [UInt16](repeating: 0, count: PartitionID.count))

    /// What the records of a namespace say. There must be 4096, or none at all.
    package init(_ records: [PartitionRecord]) {
        if records.isEmpty {
            self = .none
            return
        }
        let claims = records.map {
            PartitionClaim(version: $0.version, remembered: $0.remembered, servedCopies: $0.servedCopies)
        }
        let (different, numbers) = distinct(claims) { claim in
            var hash = WordHash()
            hash.add(version: claim.version)
            hash.add(claim.remembered.rawValue)
            hash.add(UInt64(claim.servedCopies))
            return hash.value
        }
        self.init(different: different, numbers: numbers)
    }

    /// Whether the node has a copy of the partition, whatever it holds.
    package func hasCopy(_ partition: Int) -> Bool { summaries[Int(numbers[partition])].epoch != 0 }

    package subscript(partition: Int) -> PartitionClaim { different[Int(numbers[partition])] }
}

// MARK: - Bytes

extension PartitionClaims: Equatable {
    package static func == (left: PartitionClaims, right: PartitionClaims) -> Bool {
        (0..<PartitionID.count).allSatisfy { left[$0] == right[$0] }
    }

    func encode(to writer: inout FabricWriter) {
        let keys = keys
        writer.list(keys) { writer, key in
            writer.integer(UInt8(truncatingIfNeeded: key >> 32))
            writer.integer(UInt32(truncatingIfNeeded: key))
        }
        writer.list(different) { $1.encode(to: &$0, keys: keys) }
        var runs: [(number: UInt16, count: Int)] = []
        for number in numbers {
            if runs.last?.number == number { runs[runs.count - 1].count += 1 } else { runs.append((number, 1)) }
        }
        writer.list(runs) { writer, run in
            writer.count(Int(run.number))
            writer.count(run.count)
        }
    }

    /// The view keys of all epochs, lowest first.
    private var keys: [UInt64] {
        var keys: [UInt64] = []
        for claim in different {
            keys.append(claim.remembered.viewKey)
            guard let version = claim.version else { continue }
            keys += version.line.map(\.viewKey)
            if let since = version.subsetSince { keys.append(since.viewKey) }
        }
        keys.sort()
        var last: UInt64?
        return keys.filter { key in
            defer { last = key }
            return key != last
        }
    }

    init(from reader: inout FabricReader) throws(FabricError) {
        let keys = try reader.list(ofSize: 5) { (reader: inout FabricReader) throws(FabricError) in
            UInt64(try reader.byte()) << 32 | UInt64(try reader.integer(UInt32.self))
        }
        let different = try reader.list(ofSize: 3) { (reader: inout FabricReader) throws(FabricError) in
            try PartitionClaim(from: &reader, keys: keys)
        }
        guard different.count <= PartitionID.count else { throw FabricError("there are more claims than partitions") }
        let runs = try reader.count(ofSize: 2)
        var numbers: [UInt16] = []
        numbers.reserveCapacity(PartitionID.count)
        for _ in 0..<runs {
            let (number, count) = (try reader.varint(), try reader.varint())
            guard number < UInt64(different.count), count <= UInt64(PartitionID.count - numbers.count) else {
                throw FabricError("a run of claims leads beyond the end")
            }
            numbers.append(contentsOf: repeatElement(UInt16(number), count: Int(count)))
        }
        guard numbers.count == PartitionID.count else { throw FabricError("\(numbers.count) partitions are claimed") }
        self.init(different: different, numbers: numbers)
    }
}

extension PartitionClaim {
    fileprivate func encode(to writer: inout FabricWriter, keys: [UInt64]) {
        let isOwnEpoch = version?.epoch == remembered
        writer.integer(UInt8((version == nil ? 0 : 1) | (version?.isFull == false ? 2 : 0)
            | (version?.isTorn == true ? 4 : 0) | (isOwnEpoch ? 8 : 0) | (servedCopies > 0 ? 16 : 0)
            | (version?.base != nil ? 32 : 0) | (version?.isMixed == true ? 64 : 0)))
        if servedCopies > 0 { writer.count(Int(servedCopies)) }
        if !isOwnEpoch { writer.epoch(remembered, below: .max, keys: keys) }
        guard let version else { return }
        writer.epoch(version.epoch, below: .max, keys: keys)
        if let since = version.subsetSince { writer.epoch(since, below: .max, keys: keys) }
        if let base = version.base { writer.epoch(base, below: .max, keys: keys) }
        writer.count(version.ancestors.count)
        var last = version.epoch
        for ancestor in version.ancestors {
            writer.epoch(ancestor, below: last.regime, keys: keys)
            last = ancestor
        }
    }

    fileprivate init(from reader: inout FabricReader, keys: [UInt64]) throws(FabricError) {
        let flags = try reader.byte()
        guard flags & 0x80 == 0, flags & 1 != 0 || flags & 0x6E == 0 else {
            throw FabricError("flags \(flags) are not known")
        }
        let copies = flags & 16 == 0 ? 0 : try reader.varint()
        guard copies <= UInt64(UInt16.max) else { throw FabricError("there are \(copies) copies") }
        var remembered = flags & 8 == 0 ? try reader.epoch(below: .max, keys: keys) : Epoch(rawValue: 0)
        var version: PartitionVersion?
        if flags & 1 != 0 {
            let epoch = try reader.epoch(below: .max, keys: keys)
            let since = flags & 2 == 0 ? nil : try reader.epoch(below: .max, keys: keys)
            let base = flags & 32 == 0 ? nil : try reader.epoch(below: .max, keys: keys)
            var last = epoch
            let ancestors = try reader.list(ofSize: 2) { (reader: inout FabricReader) throws(FabricError) in
                last = try reader.epoch(below: last.regime, keys: keys)
                return last
            }
            version = try PartitionVersion(
                checking: epoch, ancestors, since: since, base: base, isTorn: flags & 4 != 0, isMixed: flags & 64 != 0)
            if flags & 8 != 0 { remembered = epoch }
        }
        self.init(version: version, remembered: remembered, servedCopies: UInt16(copies))
    }
}

extension FabricWriter {
    /// The place of the key, and how far the regime lies below another; above all: the regime itself.
    fileprivate mutating func epoch(_ epoch: Epoch, below regime: UInt32, keys: [UInt64]) {
        count(keys.lowerBound { $0 < epoch.viewKey })
        varint(UInt64(regime == .max ? epoch.regime : regime - epoch.regime))
    }
}

extension FabricReader {
    fileprivate mutating func epoch(below regime: UInt32, keys: [UInt64]) throws(FabricError) -> Epoch {
        let (place, word) = (try varint(), try varint())
        guard place < UInt64(keys.count), word <= UInt64(min(regime, 0xFF_FFFF)) else {
            throw FabricError("an epoch has key \(place) and regime \(word)")
        }
        return Epoch(regime: regime == .max ? UInt32(word) : regime - UInt32(word), viewKey: keys[Int(place)])
    }
}
