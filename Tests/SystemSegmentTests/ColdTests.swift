// What an old segment may hold, or lack: each time it is a cold start with a reason, never a node that does not start.
import Base
import Glibc
import Storage
import SystemSegment
import TestSupport
import Testing

@Suite struct SegmentColdTests {
    /// Leaves a segment, changes something, and opens it: the reason must be there, and a cold start must go well.
    private func expectCold(
        _ words: String, _ kind: Segment.Kind = .shmem, isLossKnown: Bool = true, change: (inout Wish, String) throws -> Void
    ) throws {
        let scratch = try Scratch(kind)
        var wish = Wish(kind, [scratch.mount("one"), scratch.mount("two")])
        try wish.leave(1)
        let folder = try wish.open().path
        try change(&wish, folder)
        let segment = try wish.open()
        #expect(segment.coldReason?.contains(words) == true, "\(words): \(segment.coldReason ?? "nothing")")
        #expect(segment.sessionKeys.isEmpty && !segment.wasClosed)
        let reason = segment.coldReason ?? ""
        try segment.startCold(because: "no key fits")
        let loss = isLossKnown ? "; what the killed process had not written to its medium is lost" : ""
        #expect(wish.warned.all.last == "{\(wish.spec.namespace)} cold start: \(reason)\(loss)")
        #expect(segment.coldReason == nil)
        try segment.beginSession(2)
        let region = try segment.region("entries", capacity: 8 << 20)
        #expect(region.backedByteCount == 0 && region.grow(to: 6 << 20))
        let places = stride(from: 0, to: 6 << 20, by: 512)
        #expect(places.allSatisfy { region.base.load(fromByteOffset: $0, as: UInt64.self) == 0 })
        try segment.complete()
        #expect(segment.sessionKeys == [2])
    }

    @Test(arguments: [Segment.Kind.shmem, .pmem]) func otherWishesAreAColdStart(_ kind: Segment.Kind) throws {
        try expectCold("it has layout 3, this version of Apus uses layout 4", kind) { wish, _ in wish.spec.layout = 4 }
        try expectCold("storage-engine 'device'", kind) { wish, _ in wish.spec.backend = "pmem" }
        try expectCold("index-stage-size was 2097152 bytes", kind) { wish, _ in wish.spec.stageByteCount = 4 << 20 }
        try expectCold("other mounts", kind) { wish, _ in wish.spec.mounts.removeLast() }
        try expectCold("was not complete", kind, isLossKnown: false) { wish, _ in
            try wish.open().startCold(because: "")
            let segment = try wish.begin(2)
            #expect(try segment.region("entries", capacity: 4096).grow(to: 4096))
        }
    }

    @Test func otherMountsInOtherOrderAreAColdStart() throws {
        // The header is not found on the new first mount: the files that lie there belong to nothing.
        let scratch = try Scratch(.shmem)
        var wish = Wish(.shmem, [scratch.mount("one"), scratch.mount("two")])
        try wish.leave(1)
        wish.spec.mounts.reverse()
        let segment = try wish.open()
        #expect(segment.coldReason == "its header is missing")
        try segment.beginSession(2)
        let region = try segment.region("entries", capacity: 8 << 20)
        #expect(region.grow(to: 6 << 20) && region.base.load(as: UInt64.self) == 0)
    }

    @Test func somebodyElsesSegmentIsAColdStart() throws {
        try expectCold("it belongs to namespace 'birds' of the node in /var/apus") { wish, folder in
            wish.spec.namespace = "fish"
            for mount in wish.spec.mounts {
                let name = folder.split(separator: "/").last!
                #expect(rename("\(mount)/\(name)", "\(mount)/\(name.dropLast(5))fish") == 0)
            }
        }
        try expectCold("it was used as index-type shmem", .shmem) { wish, _ in wish.spec.kind = .pmem }
    }

    @Test func aDamagedHeaderIsAColdStart() throws {
        var random = SeededRandom(seed: runSeed("SegmentDamagedHeader"))
        for size in [0, 1, headerCopyByteCount - 4, headerCopyByteCount - 1] {
            try expectCold("its header is damaged", isLossKnown: false) { _, folder in
                try writeBytes(Array(try readBytes(folder + "/header").prefix(size)), folder + "/header")
            }
        }
        for _ in 0..<20 {
            let places = (0..<2).map { $0 * headerCopyByteCount + Int.random(in: 0..<headerCopyByteCount, using: &random) }
            try expectCold("its header is damaged", isLossKnown: false) { _, folder in
                var bytes = try readBytes(folder + "/header")
                for place in places { bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random) }
                try writeBytes(bytes, folder + "/header")
            }
        }
    }

    @Test func anotherFormatIsAColdStart() throws {
        try expectCold("its header has format 9, this version of Apus uses format 2", isLossKnown: false) { _, folder in
            var bytes = try readBytes(folder + "/header")
            for copy in [0, headerCopyByteCount] {
                bytes[copy + 8] = 9
                sign(&bytes, copy)
            }
            try writeBytes(bytes, folder + "/header")
        }
    }

    /// A checksum that fits makes no header of bytes that are none.
    @Test func anyBytesUnderAGoodChecksumAreSurvived() throws {
        let scratch = try Scratch(.shmem)
        let wish = Wish(.shmem, [scratch.path])
        try wish.leave(1)
        let file = try wish.open().path + "/header"
        let good = try readBytes(file)
        var random = SeededRandom(seed: runSeed("SegmentAnyHeader"))
        for _ in 0..<300 {
            var bytes = good
            for copy in [0, headerCopyByteCount] {
                for _ in 0..<Int.random(in: 1...40, using: &random) {
                    let place = Int.random(in: 12..<160, using: &random)
                    bytes[copy + place] = UInt8.random(in: 0...255, using: &random)
                }
                sign(&bytes, copy)
            }
            try writeBytes(bytes, file)
            let segment = try wish.open()
            #expect(segment.coldReason != nil || segment.sessionKeys.count <= 16)
            #expect(try SegmentDirectory.list(mounts: [scratch.path]).count == 1)
        }
    }

    /// Format 1, of before the first release: a shorter header.
    @Test func aHeaderOfFormatOneIsAColdStart() throws {
        try expectCold("its header is damaged", isLossKnown: false) { _, folder in
            var bytes = Array(try readBytes(folder + "/header").prefix(4096))
            for copy in [0, 2048] {
                bytes[copy + 8] = 1
                let sum = bytes[copy..<copy + 2044].withUnsafeBytes { crc32c($0) }
                withUnsafeBytes(of: sum.littleEndian) { bytes.replaceSubrange(copy + 2044..<copy + 2048, with: $0) }
            }
            try writeBytes(bytes, folder + "/header")
        }
    }

    /// What a killed process had in its memory only may be lost, what one that closed had written is not.
    @Test func aColdStartSaysWhetherSomethingIsLost() throws {
        let scratch = try Scratch(.shmem)
        let wish = Wish(.shmem, [scratch.path])
        try wish.leave(1)
        let left = try wish.open()
        try left.startCold(because: "a device is new")
        // Said once: this process was not killed.
        try left.beginSession(2)
        try left.complete()
        try left.startCold(because: "a line is damaged")
        try left.beginSession(3)
        try left.complete()
        left.close(isClean: true)
        let closed = try wish.open()
        try closed.beginSession(4)
        try closed.startCold(because: "a device is gone")
        #expect(
            wish.warned.all == [
                "{birds} cold start: a device is new; what the killed process had not written to its medium is lost",
                "{birds} cold start: a line is damaged", "{birds} cold start: a device is gone",
            ])
    }

    @Test func filesThatLackSomethingAreAColdStart() throws {
        try expectCold("entries.1 is missing") { wish, _ in
            #expect(run("rm \(wish.spec.mounts[1])/apus-*/entries.1") != nil)
        }
        try expectCold("entries.2 is shorter than the 1048576 bytes") { _, folder in
            #expect(truncate(folder + "/entries.2", (1 << 20) - 1) == 0)
        }
        try expectCold("entries.0 is shorter than the 2097152 bytes") { _, folder in
            #expect(run("fallocate --punch-hole -o 65536 -l 4096 '\(folder)/entries.0'") != nil)
        }
        try expectCold("entries.0 is missing") { _, folder in
            #expect(unlink(folder + "/entries.0") == 0 && symlink("/etc/passwd", folder + "/entries.0") == 0)
        }
    }

    /// Files may be longer than the header knows: their process died between the two.
    @Test func filesThatGrewButWereNotRecordedAreTaken() throws {
        let scratch = try Scratch(.shmem)
        let wish = Wish(.shmem, [scratch.path])
        try wish.leave(1)
        let folder = try wish.open().path
        #expect(truncate(folder + "/entries.2", 2 << 20) == 0)
        _ = run("touch '\(folder)/entries.3'")
        let region = try wish.begin(2).region("entries", capacity: 16 << 20)
        #expect(region.backedByteCount == 5 << 20 && region.grow(to: 9 << 20))
        for offset in stride(from: 5 << 20, to: 9 << 20, by: 4096) {
            #expect(region.base.load(fromByteOffset: offset, as: UInt64.self) == 0)
            region.base.storeBytes(of: 1, toByteOffset: offset, as: UInt64.self)
        }
    }
}

/// Gives a copy of a header, which begins at an offset, a checksum that fits.
private func sign(_ bytes: inout [UInt8], _ copy: Int) {
    let end = copy + headerCopyByteCount
    let sum = bytes[copy..<end - 4].withUnsafeBytes { crc32c($0) }
    withUnsafeBytes(of: sum.littleEndian) { bytes.replaceSubrange(end - 4..<end, with: $0) }
}
