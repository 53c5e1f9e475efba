import Base
import Engine
import Storage
import TestSupport
import Testing

@Suite struct SetTableTests {
    private func make(_ table: SetTable, _ name: String) -> UInt16? {
        Array(name.utf8).withUnsafeBytes { table.makeID(for: $0) }
    }

    private func name(_ table: SetTable, _ id: UInt16) -> String { String(decoding: table.name(of: id), as: UTF8.self) }

    private func reopened(_ image: [UInt8]) throws -> SetTable {
        try SetTable(SimulatedRegion(capacity: SetTable.byteCount, seed: 1, image: image))
    }

    @Test func namesKeepTheirIdsOverAKill() throws {
        let region = SimulatedRegion(capacity: SetTable.byteCount, seed: 1, needsPersist: false)
        let table = try SetTable(region)
        for number in 1...300 { #expect(make(table, "set\(number)") == UInt16(number)) }
        let again = try reopened(region.killImage())
        #expect(again.count == 300)
        for number in 1...300 {
            #expect(name(again, UInt16(number)) == "set\(number)")
            #expect(make(again, "set\(number)") == UInt16(number))
        }
        #expect(make(again, "new") == 301)
        // Records without a set have this one: an update writes its name into the image.
        #expect(name(table, 0) == "" && name(again, 0) == "")
    }

    @Test func whatWasGivenOutOutlivesALossOfPowerAtAnyPersist() throws {
        let region = SimulatedRegion(capacity: SetTable.byteCount, seed: 2)
        let table = try SetTable(region)
        var given = 0
        var seed: UInt64 = 0
        region.beforePersist = { [unowned region] in
            for _ in 0..<8 {
                seed += 1
                let left = try? reopened(region.crashImage(seed: seed))
                #expect((left?.count ?? -1) >= given)
                for number in 1..<(given + 1) { #expect(left.map { name($0, UInt16(number)) } == "set\(number)") }
            }
        }
        for number in 1...40 {
            #expect(make(table, "set\(number)") == UInt16(number))
            given = number
        }
        region.beforePersist = nil
        #expect(seed >= 40 * 2 * 8)
    }

    @Test func bytesThatCannotBeNamesAreRefused() throws {
        let region = SimulatedRegion(capacity: SetTable.byteCount, seed: 3, needsPersist: false)
        let table = try SetTable(region)
        _ = make(table, "one")
        _ = make(table, "two")
        let image = region.killImage()
        for (place, value) in [(32, UInt8(200)), (33, 255), (64, 0), (64, 77)] {
            var damaged = image
            damaged[place] = value
            #expect(throws: StorageError.self) { try reopened(damaged) }
        }
        var twins = image
        twins.replaceSubrange(128..<132, with: image[64..<68])
        #expect(throws: StorageError.self) { try reopened(twins) }
        let full = SimulatedRegion(capacity: SetTable.byteCount, seed: 3)
        full.room = 4096
        #expect(throws: StorageError.self) { try SetTable(full) }
    }
}
