// What a node stores of a partition, with or without a copy of it: docs/formats.md, "Metadata of a partition".
package import Base
package import Fabric

/// The metadata of one partition on one node.
package struct PartitionRecord: Hashable, Sendable {
    /// What its copy holds; nil: it has none.
    package var version: PartitionVersion?
    /// The highest epoch that it ever saw of this partition; raw value 0: none. Never below that of its version.
    package var remembered: Epoch
    /// The highest last update ever given or applied, milliseconds since 2010.
    package var highWaterMark: UInt64
    /// There were writes since the copy was last whole on its medium.
    package var isOpen: Bool
    /// How many copies belong to the epoch of `version`, if this process serves as its acting master; else 0. Not stored:
    /// who starts anew serves nothing.
    package var servedCopies: UInt16

    package init(
        version: PartitionVersion? = nil, remembered: Epoch = Epoch(rawValue: 0), highWaterMark: UInt64 = 0,
        isOpen: Bool = false, servedCopies: UInt16 = 0
    ) {
        self.version = version
        self.remembered = Epoch(rawValue: max(remembered.rawValue, version?.epoch.rawValue ?? 0))
        self.highWaterMark = highWaterMark
        self.isOpen = isOpen
        self.servedCopies = servedCopies
    }

    /// What a node takes it for when it starts: a copy found open is torn, unless the backend says that what it acknowledged
    /// is durable.
    package func foundAtStart(isDurableAtAcknowledge: Bool) -> PartitionRecord {
        var found = self
        found.servedCopies = 0
        if isOpen && !isDurableAtAcknowledge { found.version = version?.torn }
        return found
    }
}

extension PartitionRecord {
    /// What is written; the format before is read, too, as soon as there is one.
    package static let format: UInt8 = 1

    /// At most 174 bytes.
    package var encoded: [UInt8] {
        var writer = FabricWriter()
        writer.integer(UInt8((version == nil ? 0 : 1) | (version?.isFull == false ? 2 : 0)
            | (version?.isTorn == true ? 4 : 0) | (isOpen ? 8 : 0) | (version?.base != nil ? 16 : 0)
            | (version?.isMixed == true ? 32 : 0)))
        writer.integer(highWaterMark)
        writer.integer(remembered.rawValue)
        if let version {
            writer.integer(version.epoch.rawValue)
            if let since = version.subsetSince { writer.integer(since.rawValue) }
            if let base = version.base { writer.integer(base.rawValue) }
            for ancestor in version.ancestors { writer.integer(ancestor.rawValue) }
        }
        var framed = FabricWriter()
        framed.integer(Self.format)
        framed.integer(writer.bytes.withUnsafeBytes { crc32c($0) })
        return framed.bytes + writer.bytes
    }

    /// The record that `bytes` are; none, if they are empty.
    /// - Throws: names the namespace and the partition, and says what is wrong.
    package init(_ bytes: [UInt8], namespace: String, partition: Int) throws(FabricError) {
        guard !bytes.isEmpty else {
            self.init()
            return
        }
        do {
            try self.init(decoding: bytes)
        } catch {
            throw FabricError("namespace \(namespace): the metadata of partition \(partition) is damaged: \(error)")
        }
    }

    private init(decoding bytes: [UInt8]) throws(FabricError) {
        var reader = FabricReader(bytes)
        let format = try reader.byte()
        guard format == Self.format else {
            throw FabricError("it has format \(format), this version reads format \(Self.format)")
        }
        let sum = try reader.integer(UInt32.self)
        guard bytes[(bytes.count - reader.left)...].withUnsafeBytes({ crc32c($0) }) == sum else {
            throw FabricError("the checksum does not fit")
        }
        let flags = try reader.byte()
        guard flags & 0xC0 == 0, flags & 1 != 0 || flags & 0x36 == 0 else {
            throw FabricError("flags \(flags) are not known")
        }
        let (mark, remembered) = (try reader.integer(UInt64.self), Epoch(rawValue: try reader.integer()))
        var version: PartitionVersion?
        if flags & 1 != 0 {
            let epoch = Epoch(rawValue: try reader.integer())
            let since = flags & 2 == 0 ? nil : Epoch(rawValue: try reader.integer(UInt64.self))
            let base = flags & 16 == 0 ? nil : Epoch(rawValue: try reader.integer(UInt64.self))
            var ancestors: [Epoch] = []
            while reader.left > 0 { ancestors.append(Epoch(rawValue: try reader.integer())) }
            version = try PartitionVersion(
                checking: epoch, ancestors, since: since, base: base, isTorn: flags & 4 != 0, isMixed: flags & 32 != 0)
        }
        try reader.end()
        guard remembered.rawValue >= version?.epoch.rawValue ?? 0 else {
            throw FabricError("it remembers less than its own epoch")
        }
        self.init(version: version, remembered: remembered, highWaterMark: mark, isOpen: flags & 8 != 0)
    }

    /// The metadata of all partitions of a namespace, as backends store it. Equal records share their bytes.
    package static func encode(_ records: [PartitionRecord]) -> [[UInt8]] {
        let (different, numbers) = distinct(records, hash: \.mixedHash)
        let encoded = different.map(\.encoded)
        return numbers.map { encoded[Int($0)] }
    }

    /// The records of all partitions; where a backend has no metadata yet, empty ones.
    /// - Throws: names the namespace and the first damaged partition.
    package static func decode(_ metadata: [[UInt8]], namespace: String) throws(FabricError) -> [PartitionRecord] {
        guard !metadata.isEmpty else { return [PartitionRecord](repeating: PartitionRecord(), count: PartitionID.count) }
        guard metadata.count == PartitionID.count else {
            throw FabricError("namespace \(namespace): there is metadata of \(metadata.count) partitions,"
                + " there should be \(PartitionID.count)")
        }
        var records: [PartitionRecord] = []
        records.reserveCapacity(metadata.count)
        for (partition, bytes) in metadata.enumerated() {
            if partition > 0, bytes == metadata[partition - 1] {
                records.append(records[partition - 1])
            } else {
                records.append(try PartitionRecord(bytes, namespace: namespace, partition: partition))
            }
        }
        return records
    }

    fileprivate var mixedHash: UInt64 {
        var hash = WordHash()
        hash.add(version: version)
        hash.add(remembered.rawValue)
        hash.add(highWaterMark)
        return hash.value
    }
}

extension WordHash {
    /// Enough of a version to tell most apart.
    mutating func add(version: PartitionVersion?) {
        guard let version else { return add(0) }
        add(version.epoch.rawValue)
        add(version.subsetSince?.rawValue ?? (version.isTorn ? 1 : 0))
        add(version.base?.rawValue ?? 0)
        for ancestor in version.ancestors { add(ancestor.rawValue) }
    }
}

extension PartitionVersion {
    /// A version out of bytes that may hold anything.
    /// - Throws: if no node can have written it.
    init(
        checking epoch: Epoch, _ ancestors: [Epoch], since: Epoch?, base: Epoch?, isTorn: Bool, isMixed: Bool
    ) throws(FabricError) {
        guard epoch.rawValue != 0, ancestors.count <= Self.ancestorsMax else { throw FabricError("a version has no epoch") }
        var last = epoch
        for ancestor in ancestors {
            // At the highest regime of all epochs are told apart by their keys only.
            guard ancestor.rawValue != 0, ancestor.regime < last.regime || last.regime == 0xFF_FFFF else {
                throw FabricError("the epochs of a version are not in order")
            }
            last = ancestor
        }
        guard since.map({ $0.regime <= epoch.regime }) ?? true else {
            throw FabricError("a version is a subset since later than now")
        }
        guard since != nil || base == nil && !isMixed, base.map({ ancestors.contains($0) }) ?? true else {
            throw FabricError("a version has a base that cannot be")
        }
        self.init(
            epoch: epoch, ancestors: ancestors, subsetSince: since, base: base, isTorn: isTorn, isMixed: isMixed)
    }
}
