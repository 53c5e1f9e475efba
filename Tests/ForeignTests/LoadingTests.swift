// Every file that is no plugin for this node is refused with a sentence that names the file and the fault.
import Base
import CBackend
import Foreign
import Storage
import TestSupport
import Testing

/// The problems that loading reports; empty if it does not.
private func problems(_ body: () throws(PluginError) -> BackendDescriptor) -> [String] {
    do throws(PluginError) {
        _ = try body()
        return []
    } catch {
        #expect(error.path.hasPrefix("/plugins/"))
        #expect(error.problems.allSatisfy { $0.contains("'\(error.path)'") })
        return error.problems
    }
}

private struct Fault: Sendable {
    let text: String
    let change: @Sendable (inout apus_backend) -> Void

    init(_ text: String, _ change: @escaping @Sendable (inout apus_backend) -> Void) {
        self.text = text
        self.change = change
    }
}

private func withSettings(
    _ make: @autoclosure @escaping @Sendable () -> [apus_setting]
) -> @Sendable (inout apus_backend) -> Void {
    { table in
        let settings = make()
        table.settings = constant(settings)
        table.setting_count = UInt32(settings.count)
    }
}

private let headFaults = [
    Fault("does not begin with the magic number") { $0.magic = 0x7F45_4C46 },
    Fault("its struct has 223 bytes") { $0.size = 223 },
    Fault("its struct has 0 bytes") { $0.size = 0 },
    Fault("its struct has 1000000 bytes") { $0.size = 1_000_000 },
    Fault("built for version 2.0") { $0.version_major = 2 },
    Fault("built for version 0.0") { $0.version_major = 0 },
    Fault("built for version 1.1") { $0.version_minor = 1 },
]

private let fieldFaults = [
    Fault("the name is missing or malformed") { $0.name = nil },
    Fault("the name is missing or malformed") { $0.name = constant("") },
    Fault("the name is missing or malformed") { $0.name = constant("Big Tree") },
    Fault("the name is missing or malformed") { $0.name = constant(String(repeating: "a", count: 64)) },
    Fault("the slot 'open' is NULL") { $0.open = nil },
    Fault("the slot 'close' is NULL") { $0.close = nil },
    Fault("the slot 'make_shard' is NULL") { $0.make_shard = nil },
    Fault("the slot 'end_shard' is NULL") { $0.end_shard = nil },
    Fault("the slot 'append' is NULL") { $0.append = nil },
    Fault("the slot 'read' is NULL") { $0.read = nil },
    Fault("the slot 'remove' is NULL") { $0.remove = nil },
    Fault("the slot 'release' is NULL") { $0.capabilities = APUS_DURABLE_AT_COMMIT },
    Fault("the slot 'commit' is NULL") { $0.commit = nil },
    Fault("the slot 'scan' is NULL") { $0.scan = nil },
    Fault("the slot 'load_blob' is NULL") { $0.load_blob = nil },
    Fault("the slot 'store_blob' is NULL") { $0.store_blob = nil },
    Fault("the slot 'load_metadata' is NULL") { $0.load_metadata = nil },
    Fault("the slot 'store_metadata' is NULL") { $0.store_metadata = nil },
    Fault("the slot 'statistics' is NULL") { $0.statistics = nil },
    Fault("capability bits 0x100") { $0.capabilities |= 0x100 },
    Fault("bit 31 (self-indexed) is reserved") { $0.capabilities |= 1 << 31 },
    Fault("volatile excludes durable-at-commit") { $0.capabilities |= APUS_VOLATILE },
    Fault("blocking is only for keyed backends") { table in
        table.capabilities = APUS_BLOCKING
        table.release = { _, _, _, _ in }
    },
    Fault("the formats 4 to 3") { $0.format_min = 4 },
    Fault("the formats 1 to 70000") { $0.format_max = 70_000 },
    Fault("image_size_max is 100") { $0.image_size_max = 100 },
    Fault("image_size_max is 18446744073709551615") { $0.image_size_max = .max },
    Fault("location_bits is 0") { $0.location_bits = 0 },
    Fault("location_bits is 45") { $0.location_bits = 45 },
    Fault("atomic_write_size is 513") { $0.atomic_write_size = 513 },
    Fault("medium is 3") { $0.medium = 3 },
]

private let settingFaults = [
    Fault("it has 257 settings") { $0.setting_count = 257 },
    Fault("pointer to them is NULL") { $0.settings = nil },
    Fault("the name of setting 0 is missing", withSettings([setting("", APUS_SETTING_TEXT)])),
    Fault("two settings 'a'", withSettings([setting("a", APUS_SETTING_TEXT), setting("a", APUS_SETTING_LIST)])),
    Fault("setting 'a' has kind 9", withSettings([setting("a", 9)])),
    Fault("bounds of setting 'a' are 2 to 1", withSettings([setting("a", APUS_SETTING_SIZE, from: 2, to: 1)])),
    Fault("no words to choose from", withSettings([setting("a", APUS_SETTING_WORD)])),
    Fault("no words to choose from", withSettings([setting("a", APUS_SETTING_WORD, words: [])])),
    Fault("a word of setting 'a'", withSettings([setting("a", APUS_SETTING_WORD, words: ["x", ""])])),
    Fault("no help line", withSettings([setting("a", APUS_SETTING_TEXT, help: nil)])),
    Fault("the default of setting 'a'",
        withSettings([setting("a", APUS_SETTING_TEXT, default: String(repeating: "x", count: 1025))])),
    Fault("the default 'z' of setting 'a'", withSettings([setting("a", APUS_SETTING_WORD, default: "z", words: ["x"])])),
    Fault("the default 'maybe'", withSettings([setting("a", APUS_SETTING_BOOLEAN, default: "maybe")])),
    Fault("the default '5'", withSettings([setting("a", APUS_SETTING_INTEGER, default: "5", from: 6, to: 9)])),
    Fault("the default '6x'", withSettings([setting("a", APUS_SETTING_INTEGER, default: "6x", from: 6, to: 9)])),
    Fault("the default '2K'", withSettings([setting("a", APUS_SETTING_SIZE, default: "2K", from: 0, to: 2047)])),
    Fault("the default '99999999P'", withSettings([setting("a", APUS_SETTING_SIZE, default: "99999999P", to: .max)])),
    Fault("the default '2d'", withSettings([setting("a", APUS_SETTING_SECONDS, default: "2d", to: 86_400)])),
    Fault("the default '2s'", withSettings([setting("a", APUS_SETTING_MILLISECONDS, default: "2s", to: 1999)])),
]

@Test func everyFaultIsRefusedWithItsOwnSentence() {
    for fault in headFaults + fieldFaults + settingFaults {
        let loader = FakeLoader()
        let found = problems { () throws(PluginError) in try loader.load(fault.change) }
        #expect(found.count == 1 && found.first?.contains(fault.text) == true, "\(fault.text): \(found)")
        #expect(loader.closed == 1)
    }
}

@Test func allFaultsOfAFileAreReportedAtOnce() {
    let found = problems { () throws(PluginError) in
        try FakeLoader().load { table in
            for fault in [fieldFaults[0], fieldFaults[8], fieldFaults[19], fieldFaults[29]] { fault.change(&table) }
            settingFaults[12].change(&table)
        }
    }
    #expect(found.count == 5, "\(found)")
}

@Test func aFileOfAnotherKindIsRefused() {
    let loader = FakeLoader()
    #expect(problems { () throws(PluginError) in try loader.load(nil, path: "/plugins/none.so") }
        == ["plugin '/plugins/none.so': it cannot be opened: no such file"])
    #expect(loader.closed == 0)
    #expect(problems { () throws(PluginError) in try loader.load(nil) }
        == ["plugin '/plugins/test.so': apus_backend_entry returned NULL"])
    loader.hasSymbol = false
    #expect(problems { () throws(PluginError) in try loader.load { _ in } }
        == ["plugin '/plugins/test.so': it does not export 'apus_backend_entry': it is no storage plugin"])
    #expect(loader.closed == 2)
}

@Test func nothingBehindTheHeadIsReadBeforeItFits() {
    // 16 bytes at the very end of an allocation, and an address that no struct can have.
    for change in headFaults.map(\.change) {
        var table = goodTable()
        change(&table)
        let head = UnsafeMutableRawPointer.allocate(byteCount: 16, alignment: 8)
        withUnsafeBytes(of: table) { head.copyMemory(from: $0.baseAddress!, byteCount: 16) }
        let found = problems { () throws(PluginError) in
            try FakeLoader().load(UnsafePointer(head.assumingMemoryBound(to: apus_backend.self)))
        }
        #expect(found.count == 1)
        head.deallocate()
    }
    let room = UnsafeMutableRawPointer.allocate(byteCount: 1024, alignment: 8)
    room.storeBytes(of: APUS_BACKEND_MAGIC, toByteOffset: 4, as: UInt64.self)
    let crooked = UnsafePointer<apus_backend>(OpaquePointer(room + 4))
    #expect(problems { () throws(PluginError) in try FakeLoader().load(crooked) }.first?.contains("magic") == true)
    room.deallocate()
}

@Test func randomNumbersInAStructNeverTrap() {
    let seed = runSeed("randomNumbersInAStructNeverTrap")
    var random = SeededRandom(seed: seed)
    var refused = 0
    forAWhile(0.3, until: refused > 0) {
        let found = problems { () throws(PluginError) in
            try FakeLoader().load { table in
                func number() -> UInt64 { random.next() >> (random.next() % 64) }
                for _ in 0...random.next() % 3 {
                    switch random.next() % 8 {
                    case 0: table.capabilities = UInt32(truncatingIfNeeded: number())
                    case 1: table.image_size_max = number()
                    case 2: table.location_bits = UInt32(truncatingIfNeeded: number())
                    case 3: table.format_min = UInt32(truncatingIfNeeded: number())
                    case 4: table.format_max = UInt32(truncatingIfNeeded: number())
                    case 5: table.atomic_write_size = UInt32(truncatingIfNeeded: number())
                    case 6: table.size = UInt32(truncatingIfNeeded: number())
                    default: table.medium = UInt32(truncatingIfNeeded: number())
                    }
                }
            }
        }
        if !found.isEmpty { refused += 1 }
    }
    #expect(refused > 0, "APUS_SEED=\(seed)")
}

@Test func aGoodFileBecomesADescriptor() throws {
    let loader = FakeLoader()
    let descriptor = try loader.load { $0.size += 8 }
    #expect(loader.closed == 0)
    #expect(descriptor.name == "test-plugin")
    #expect(descriptor.contract == .current)
    #expect(descriptor.formats == 1...3)
    #expect(descriptor.capabilities == [.keyed, .durableAtCommit, .deletesLast])
    #expect(descriptor.limits == BackendLimits(imageSizeMax: 1 << 20, locationBits: 40, atomicWriteSize: 4096))
    #expect(descriptor.medium == .directory)
    #expect(descriptor.settings.map(\.name) == ["cache-size", "mode", "hosts"])
    #expect(descriptor.settings.map(\.kind) == [.size(1 << 20...1 << 40), .word(["safe", "lazy"]), .list])
    #expect(descriptor.settings.map(\.defaultText) == ["16M", "safe", ""])
}

@Test func everyKindOfSettingTakesAFittingDefault() throws {
    let descriptor = try FakeLoader().load(withSettings([
        setting("a", APUS_SETTING_BOOLEAN, default: "true"),
        setting("b", APUS_SETTING_INTEGER, default: "9", from: 6, to: 9),
        setting("c", APUS_SETTING_SIZE, default: "2k", from: 2048, to: 2048),
        setting("d", APUS_SETTING_SECONDS, default: "2h", from: 7200, to: 7200),
        setting("e", APUS_SETTING_MILLISECONDS, default: "2s", from: 2000, to: 2000),
        setting("f", APUS_SETTING_TEXT, default: "anything; at all"),
        setting("g", APUS_SETTING_LIST, default: ""),
        setting("h", APUS_SETTING_SIZE, from: 1, to: 2),
    ]))
    #expect(descriptor.settings.count == 8)
    #expect(descriptor.settings.map(\.kind).prefix(5) == [
        .boolean, .integer(6...9), .size(2048...2048), .seconds(7200...7200), .milliseconds(2000...2000),
    ])
}
