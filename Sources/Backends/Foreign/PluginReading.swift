// What a plugin says about itself, checked. Nothing beyond magic, size and version is looked at before these three
// fit: a file that is something else, or of another version, is refused without touching what may not be there.
internal import Base
internal import CBackend
internal import Storage

/// The struct of an accepted plugin. It never changes and is never unloaded, so any thread may read it.
struct Plugin: @unchecked Sendable {
    let table: UnsafePointer<apus_backend>
}

/// One reading of one plugin's struct, and what is wrong with it.
struct PluginReading {
    /// No struct of ours will ever be this large.
    private static let tableSizeMax = 4096
    private static let imageSizes: ClosedRange<UInt64> = 1024...1 << 30
    private static let formatMax: UInt32 = 65_535
    private static let helpSizeMax = 1024
    private(set) var problems: [String] = []

    mutating func report(_ problem: String) { problems.append(problem) }

    /// The descriptor of a struct without faults; nil if something was reported.
    mutating func descriptor(_ address: UnsafeRawPointer) -> BackendDescriptor? {
        guard isOurs(address) else { return nil }
        let plugin = Plugin(table: address.assumingMemoryBound(to: apus_backend.self))
        let table = plugin.table.pointee
        let name = name(table.name, "the name")
        checkSlots(table)
        let capabilities = capabilities(table)
        let formats = formats(table)
        let limits = limits(table)
        let medium = medium(table)
        let settings = settings(table)
        guard problems.isEmpty, let name, let formats, let limits, let medium else { return nil }
        return BackendDescriptor(
            name: name, contract: .current, formats: formats, capabilities: capabilities, limits: limits,
            medium: medium, settings: settings,
            open: { (request) throws(StorageError) -> any Backend in
                try ForeignBackend(plugin, name, capabilities, limits, request)
            })
    }

    /// Magic, size and version, in this order: each says whether the next may be read.
    private mutating func isOurs(_ address: UnsafeRawPointer) -> Bool {
        let magic = address.loadUnaligned(as: UInt64.self)
        guard magic == APUS_BACKEND_MAGIC, Int(bitPattern: address) % MemoryLayout<apus_backend>.alignment == 0 else {
            report("it does not begin with the magic number of a storage plugin (0x\(String(magic, radix: 16)))")
            return false
        }
        let head = address.assumingMemoryBound(to: apus_backend.self)
        let major = head.pointee.version_major
        let minor = head.pointee.version_minor
        let isVersion = major == APUS_VERSION_MAJOR && minor <= APUS_VERSION_MINOR
        if !isVersion {
            report("it was built for version \(major).\(minor) of apus_backend.h,"
                + " this node speaks \(APUS_VERSION_MAJOR).\(APUS_VERSION_MINOR)")
        }
        let size = Int(head.pointee.size)
        let isSize = (MemoryLayout<apus_backend>.size...PluginReading.tableSizeMax).contains(size)
        if !isSize {
            report("its struct has \(size) bytes, that of version \(APUS_VERSION_MAJOR).\(APUS_VERSION_MINOR)"
                + " has \(MemoryLayout<apus_backend>.size)")
        }
        return isVersion && isSize
    }

    private mutating func checkSlots(_ table: apus_backend) {
        let isKeyed = table.capabilities & APUS_KEYED != 0
        let slots: [(name: String, isThere: Bool)] = [
            ("open", table.open != nil), ("close", table.close != nil), ("make_shard", table.make_shard != nil),
            ("end_shard", table.end_shard != nil), ("append", table.append != nil), ("read", table.read != nil),
            ("remove", table.remove != nil || !isKeyed), ("release", table.release != nil || isKeyed),
            ("commit", table.commit != nil), ("scan", table.scan != nil), ("load_blob", table.load_blob != nil),
            ("store_blob", table.store_blob != nil), ("load_metadata", table.load_metadata != nil),
            ("store_metadata", table.store_metadata != nil), ("statistics", table.statistics != nil),
        ]
        for slot in slots where !slot.isThere { report("the slot '\(slot.name)' is NULL") }
    }

    private mutating func capabilities(_ table: apus_backend) -> Capabilities {
        let capabilities = Capabilities(rawValue: table.capabilities)
        let known: Capabilities = [.durableAtCommit, .deletesLast, .keyed, .blocking, .volatile]
        if capabilities.contains(.selfIndexed) { report("capability bit 31 (self-indexed) is reserved") }
        let unknown = capabilities.subtracting(known.union(.selfIndexed)).rawValue
        if unknown != 0 { report("the capability bits 0x\(String(unknown, radix: 16)) mean nothing to this node") }
        if capabilities.contains(.volatile), !capabilities.isDisjoint(with: [.durableAtCommit, .blocking]) {
            report("the capability volatile excludes durable-at-commit and blocking")
        }
        if capabilities.contains(.blocking), !capabilities.contains(.keyed) {
            report("the capability blocking is only for keyed backends")
        }
        return capabilities
    }

    private mutating func formats(_ table: apus_backend) -> ClosedRange<Int>? {
        let (low, high) = (table.format_min, table.format_max)
        guard low <= high, high <= PluginReading.formatMax else {
            report("it reads the formats \(low) to \(high) of its medium: there are none, or too many")
            return nil
        }
        return Int(low)...Int(high)
    }

    private mutating func limits(_ table: apus_backend) -> BackendLimits? {
        let before = problems.count
        if !PluginReading.imageSizes.contains(table.image_size_max) {
            report("image_size_max is \(table.image_size_max), not within"
                + " \(PluginReading.imageSizes.lowerBound) to \(PluginReading.imageSizes.upperBound) bytes")
        }
        if !(1...UInt32(Location.bitCount)).contains(table.location_bits) {
            report("location_bits is \(table.location_bits), not within 1 to \(Location.bitCount)")
        }
        if table.atomic_write_size.nonzeroBitCount > 1 {
            report("atomic_write_size is \(table.atomic_write_size): neither 0 nor a power of two")
        }
        guard problems.count == before else { return nil }
        return BackendLimits(
            imageSizeMax: Int(table.image_size_max), locationBits: Int(table.location_bits),
            atomicWriteSize: Int(table.atomic_write_size))
    }

    private mutating func medium(_ table: apus_backend) -> Medium? {
        switch table.medium {
        case APUS_MEDIUM_NONE: return Medium.none
        case APUS_MEDIUM_DIRECTORY: return .directory
        case APUS_MEDIUM_OWN: return .own
        default:
            report("medium is \(table.medium), which means nothing to this node")
            return nil
        }
    }

    // ---- Settings ----

    private mutating func settings(_ table: apus_backend) -> [SettingSchema] {
        let count = Int(table.setting_count)
        guard count <= Int(APUS_SETTINGS_MAX) else {
            report("it has \(count) settings, at most \(APUS_SETTINGS_MAX) are allowed")
            return []
        }
        guard count > 0 else { return [] }
        guard let entries = table.settings else {
            report("it has \(count) settings, but the pointer to them is NULL")
            return []
        }
        var settings: [SettingSchema] = []
        for number in 0..<count {
            guard let setting = setting(entries[number], number) else { continue }
            if settings.contains(where: { $0.name == setting.name }) { report("it has two settings '\(setting.name)'") }
            settings.append(setting)
        }
        return settings
    }

    private mutating func setting(_ entry: apus_setting, _ number: Int) -> SettingSchema? {
        guard let name = name(entry.name, "the name of setting \(number)"), let kind = kind(entry, name) else { return nil }
        let hasDefault = entry.default_text != nil
        guard let standard = hasDefault ? text(entry.default_text, sizeMax: PluginReading.helpSizeMax) : "" else {
            report("the default of setting '\(name)' is no text of at most \(PluginReading.helpSizeMax) bytes")
            return nil
        }
        guard let help = text(entry.help, sizeMax: PluginReading.helpSizeMax), !help.isEmpty else {
            report("setting '\(name)' has no help line of at most \(PluginReading.helpSizeMax) bytes")
            return nil
        }
        guard standard.isEmpty || SettingText.fits(standard, kind) else {
            report("the default '\(standard)' of setting '\(name)' does not fit its kind and bounds")
            return nil
        }
        return SettingSchema(name, kind, default: standard, help: help)
    }

    private mutating func kind(_ entry: apus_setting, _ name: String) -> SettingSchema.Kind? {
        let isNumber = (APUS_SETTING_INTEGER...APUS_SETTING_MILLISECONDS).contains(entry.kind)
        if isNumber, entry.minimum > entry.maximum {
            report("the bounds of setting '\(name)' are \(entry.minimum) to \(entry.maximum): nothing is within them")
            return nil
        }
        let bounds = isNumber ? entry.minimum...entry.maximum : 0...0
        switch entry.kind {
        case APUS_SETTING_BOOLEAN: return .boolean
        case APUS_SETTING_INTEGER: return .integer(bounds)
        case APUS_SETTING_SIZE: return .size(bounds)
        case APUS_SETTING_SECONDS: return .seconds(bounds)
        case APUS_SETTING_MILLISECONDS: return .milliseconds(bounds)
        case APUS_SETTING_WORD: return words(entry, name).map { .word($0) }
        case APUS_SETTING_TEXT: return .text
        case APUS_SETTING_LIST: return .list
        default:
            report("setting '\(name)' has kind \(entry.kind), which means nothing to this node")
            return nil
        }
    }

    private mutating func words(_ entry: apus_setting, _ name: String) -> [String]? {
        var words: [String] = []
        while words.count <= Int(APUS_SETTINGS_MAX), let next = entry.words?[words.count] {
            guard let word = text(next, sizeMax: 63), !word.isEmpty else {
                report("a word of setting '\(name)' is no text of 1 to 63 bytes")
                return nil
            }
            words.append(word)
        }
        guard (1...Int(APUS_SETTINGS_MAX)).contains(words.count) else {
            report("setting '\(name)' has no words to choose from, or their list has no end")
            return nil
        }
        return words
    }

    // ---- Text ----

    private mutating func name(_ start: UnsafePointer<CChar>?, _ what: String) -> String? {
        guard let name = text(start, sizeMax: 63), SettingText.isWord(name) else {
            report("\(what) is missing or malformed: 1 to 63 of a-z, 0-9 and -")
            return nil
        }
        return name
    }

    /// Text that ends with a zero byte within `sizeMax` bytes; nil otherwise. Looks at no byte behind the end.
    private func text(_ start: UnsafePointer<CChar>?, sizeMax: Int) -> String? {
        guard let start, let size = (0...sizeMax).first(where: { start[$0] == 0 }) else { return nil }
        return String(validating: UnsafeRawBufferPointer(start: start, count: size), as: UTF8.self)
    }
}
