// What outlives a process, and which session keys fit at each step. An object that is dropped without `close` is what a
// kill leaves: nothing is written on the way out.
import Base
import Glibc
import Storage
import SystemSegment
import TestSupport
import Testing

@Suite struct SegmentKeptTests {
    static let kinds = [Segment.Kind.shmem, .pmem]

    @Test(arguments: kinds) func whatWasWrittenIsThereAfterAKill(_ kind: Segment.Kind) throws {
        let scratch = try Scratch(kind)
        let wish = Wish(kind, [scratch.path])
        var random = SeededRandom(seed: runSeed("SegmentKeptTests"))
        let content = (0..<(5 << 17)).map { _ in random.next() as UInt64 }
        do {
            let segment = try wish.open()
            #expect(segment.name == kind.rawValue && segment.coldReason == "there is no segment yet")
            #expect(segment.sessionKeys.isEmpty && !segment.wasClosed && !segment.isDurable)
            try segment.startCold(because: "nothing is there")
            try segment.beginSession(7)
            try segment.sessionBegan()
            let region = try segment.region("entries", capacity: 64 << 20)
            #expect(region.capacity == 64 << 20 && region.backedByteCount == 0 && region.needsPersist == (kind == .pmem))
            #expect(Int(bitPattern: region.base) % (2 << 20) == 0)
            #expect(region.grow(to: content.count * 8) && region.backedByteCount == 5 << 20)
            content.withUnsafeBytes { region.base.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
            region.persist(offset: 0, byteCount: content.count * 8)
            #expect(try segment.region("entries", capacity: 64 << 20) === region)
            #expect(segment.sessionKeys.isEmpty)
            try segment.complete()
            #expect(segment.sessionKeys == [7])
        }
        #expect(wish.logged.all == ["{birds} index-type \(kind): a new segment in \(try wish.open().path)"])
        let segment = try wish.open()
        #expect(segment.coldReason == nil && segment.sessionKeys == [7] && !segment.wasClosed)
        try segment.beginSession(8)
        let region = try segment.region("entries", capacity: 64 << 20)
        #expect(region.backedByteCount == 5 << 20)
        let found = UnsafeRawBufferPointer(start: region.base, count: content.count * 8)
        #expect(content.withUnsafeBytes { found.equals($0) })
        #expect(region.grow(to: 6 << 20))
        #expect((5 << 20..<6 << 20).allSatisfy { region.base.load(fromByteOffset: $0, as: UInt8.self) == 0 })
        let notes = wish.warned.all.filter { !$0.contains("NOT durable when power fails") }
        #expect(notes.isEmpty && wish.warned.all.isEmpty == (kind == .shmem))
    }

    @Test(arguments: kinds) func keysFollowTheSteps(_ kind: Segment.Kind) throws {
        let scratch = try Scratch(kind)
        let wish = Wish(kind, [scratch.path])
        // What the next process finds if this one is killed after the step.
        func after(_ step: (Segment) throws -> Void) throws -> [UInt64] {
            do { try step(wish.open()) }
            return try wish.open().sessionKeys
        }
        #expect(try after { try $0.beginSession(1) } == [])
        #expect(try after { try $0.beginSession(2); try $0.sessionBegan() } == [])
        #expect(try after { try $0.beginSession(3); try $0.sessionBegan(); try $0.complete() } == [3])
        #expect(try after { try $0.beginSession(4) } == [3, 4])
        #expect(try after { try $0.beginSession(5) } == [3, 4, 5])
        #expect(try after { try $0.beginSession(6); try $0.sessionBegan() } == [6])
        #expect(try after { try $0.startCold(because: "a device is new") } == [])
        let loss = "; what the killed process had not written to its medium is lost"
        #expect(wish.warned.all.contains("{birds} cold start: a device is new\(loss)"))
        #expect(try after { try $0.complete(); $0.close(isClean: true) } == [])
    }

    @Test func manyBrokenBeginsKeepTheOldestAndTheNewestKeys() throws {
        let scratch = try Scratch(.shmem)
        let wish = Wish(.shmem, [scratch.path])
        try wish.leave(100)
        for key in 101...140 { try wish.open().beginSession(UInt64(key)) }
        #expect(try wish.open().sessionKeys == [100] + (126...140).map { UInt64($0) })
    }

    @Test(arguments: kinds) func aCleanCloseIsKnownOnce(_ kind: Segment.Kind) throws {
        let scratch = try Scratch(kind)
        let wish = Wish(kind, [scratch.path])
        try wish.leave(1)
        for isClean in [true, false] {
            let segment = try wish.begin(2)
            #expect(!segment.wasClosed)
            let region = try segment.region("entries", capacity: 8 << 20)
            segment.close(isClean: isClean)
            #expect(throws: StorageError.closed) { try segment.complete() }
            // What still has the region may use its bytes.
            #expect(region.base.load(as: UInt64.self) == 1 && !region.grow(to: 6 << 20))
            let next = try wish.open()
            #expect(next.wasClosed == isClean && next.sessionKeys == [2])
            try next.beginSession(3)
            #expect(!next.wasClosed)
        }
        #expect(try !wish.open().wasClosed)
    }

    @Test(arguments: kinds) func aColdStartForgetsRegionsThatAreOpen(_ kind: Segment.Kind) throws {
        let scratch = try Scratch(kind)
        let wish = Wish(kind, [scratch.path])
        try wish.leave(1)
        let segment = try wish.begin(2)
        let old = try segment.region("entries", capacity: 8 << 20)
        // Whole stages: the next one would be a new file.
        let whole = try segment.region("lines", capacity: 8 << 20)
        #expect(whole.grow(to: 2 << 20))
        try segment.startCold(because: "an entry points nowhere")
        #expect(old.base.load(as: UInt64.self) == 1 && !old.grow(to: 8 << 20) && !whole.grow(to: 4 << 20))
        #expect(run("ls '\(segment.path)'") == "header\nlock")
        try segment.beginSession(3)
        let new = try segment.region("entries", capacity: 8 << 20)
        #expect(new !== old && new.backedByteCount == 0 && new.grow(to: 4096) && new.base.load(as: UInt64.self) == 0)
        try segment.complete()
        #expect(segment.sessionKeys == [3])
    }

    @Test func anotherCapacityIsTaken() throws {
        let scratch = try Scratch(.shmem)
        let wish = Wish(.shmem, [scratch.path])
        try wish.leave(1)
        // What is there does not fit into 1 MiB: there is room for it all the same.
        for (wanted, capacity) in [(1 << 20, 5 << 20), (64 << 20, 64 << 20)] {
            let region = try wish.begin(2).region("entries", capacity: wanted)
            #expect(region.capacity == capacity && region.backedByteCount == 5 << 20 && !region.grow(to: capacity + 1))
            #expect(region.base.load(as: UInt64.self) == 1)
        }
    }

    /// A process that dies while it changes the header leaves the one before.
    @Test func aTornHeaderChangeIsTheOneBefore() throws {
        let scratch = try Scratch(.shmem)
        let wish = Wish(.shmem, [scratch.path])
        var random = SeededRandom(seed: runSeed("SegmentTornHeader"))
        try wish.leave(1)
        let file = try wish.open().path + "/header"
        for key in 2..<40 as Range<UInt64> {
            let before = try readBytes(file)
            let keys = try wish.open().sessionKeys
            try wish.open().beginSession(key)
            let after = try readBytes(file)
            // Only a part of the copy arrived; what makes a difference lies in its front.
            let torn = try #require(changedCopy(before, after))
            let arrived = Int.random(in: 1..<64, using: &random)
            var bytes = before
            bytes[torn..<torn + arrived] = after[torn..<torn + arrived]
            try writeBytes(bytes, file)
            do {
                let found = try wish.open()
                #expect(found.coldReason == nil && found.sessionKeys == keys, "\(arrived) bytes")
            }
            try writeBytes(after, file)
            #expect(try wish.open().sessionKeys.last == key)
        }
    }

    /// 128 devices and what else there may be, with the longest names: 160 fit.
    @Test(arguments: kinds) func manyRegionsAreFoundAgain(_ kind: Segment.Kind) throws {
        let scratch = try Scratch(kind)
        var wish = Wish(kind, [scratch.mount("one"), scratch.mount("two")])
        wish.spec.owner = "/" + String(repeating: "o", count: 1023)
        wish.spec.namespace = String(repeating: "n", count: 64)
        wish.spec.backend = String(repeating: "b", count: 64)
        let names = (100..<260).map { String(repeating: "a-z0-9-", count: 4) + "\($0)" }
        #expect(names.allSatisfy { $0.utf8.count == 31 })
        do {
            let segment = try wish.begin(1)
            for key in 2..<20 as Range<UInt64> { try segment.beginSession(key) }
            for (number, name) in names.enumerated() {
                let region = try segment.region(name, capacity: 1 << 20)
                #expect(region.grow(to: 4096))
                region.base.storeBytes(of: number + 1, as: Int.self)
                region.persist(offset: 0, byteCount: 8)
            }
            try segment.complete()
        }
        let segment = try wish.open()
        #expect(segment.coldReason == nil && segment.sessionKeys.last == 19)
        try segment.beginSession(20)
        for (number, name) in names.enumerated() {
            let region = try segment.region(name, capacity: 1 << 20)
            let found = region.base.load(as: Int.self)
            #expect(region.backedByteCount == 65_536)
            #expect(found == number + 1)
        }
    }

    /// A change in the back of a long header: a copy of which only the front arrived does not count.
    @Test func aTornLongHeaderIsTheOneBefore() throws {
        let scratch = try Scratch(.shmem)
        let wish = Wish(.shmem, [scratch.path])
        var random = SeededRandom(seed: runSeed("SegmentTornLongHeader"))
        let names = (0..<140).map { "log-blocks-\($0)" }
        var backed = 0
        for key in 1..<20 as Range<UInt64> {
            let segment = try wish.begin(key)
            for name in names where key == 1 { #expect(try segment.region(name, capacity: 4 << 20).grow(to: 1)) }
            try segment.complete()
            let file = segment.path + "/header"
            let last = try segment.region(names[139], capacity: 4 << 20)
            let before = try readBytes(file)
            backed = last.backedByteCount
            #expect(last.grow(to: backed + 1))
            let after = try readBytes(file)
            let torn = try #require(changedCopy(before, after))
            let firstArrives = Int.random(in: 17..<2500, using: &random)
            var bytes = before
            bytes[torn..<torn + firstArrives] = after[torn..<torn + firstArrives]
            segment.close(isClean: false)
            try writeBytes(bytes, file)
            let next = try wish.begin(key)
            let found = try next.region(names[139], capacity: 4 << 20).backedByteCount
            #expect(next.coldReason == nil && found == backed, "\(firstArrives) bytes")
            #expect(try next.region(names[0], capacity: 4 << 20).backedByteCount == 65_536)
            try #expect(next.region(names[139], capacity: 4 << 20).grow(to: backed + 1))
        }
    }
}

/// Where the copy begins that alone differs between two header files; nil if it is not one.
private func changedCopy(_ before: [UInt8], _ after: [UInt8]) -> Int? {
    let size = headerCopyByteCount
    guard before.count == 2 * size, after.count == 2 * size else { return nil }
    let changed = [0, size].filter { before[$0..<$0 + size] != after[$0..<$0 + size] }
    return changed.count == 1 ? changed[0] : nil
}

func readBytes(_ path: String) throws -> [UInt8] {
    let descriptor = open(path, O_RDONLY)
    guard descriptor >= 0 else { throw StorageError.device(errno: errno, operation: path) }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 4 * headerCopyByteCount)
    let got = bytes.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
    return Array(bytes.prefix(max(got, 0)))
}

func writeBytes(_ bytes: [UInt8], _ path: String) throws {
    let descriptor = open(path, O_WRONLY | O_TRUNC)
    guard descriptor >= 0 else { throw StorageError.device(errno: errno, operation: path) }
    defer { close(descriptor) }
    #expect(bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) } == bytes.count)
}
