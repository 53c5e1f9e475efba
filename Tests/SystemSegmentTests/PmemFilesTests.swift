// Files of `storage-engine pmem`, on a disk, and so forced: what is made, found again, waited for and refused.
import Base
import Glibc
import PMEM
import Synchronization
import SystemSegment
import TestSupport
import Testing

@Suite struct PmemFilesTests {
    private let scratch: Scratch
    private let path: String
    private static let byteCount = 1 << 20

    init() throws {
        scratch = try Scratch(.pmem)
        path = scratch.path + "/a.pmem"
    }

    private func open(
        _ path: String? = nil, byteCount: Int = Self.byteCount, isLookedAt: Bool = false, isForced: Bool = true
    ) throws(PmemOpenError) -> PmemFile {
        let request = PmemRequest(path: path ?? self.path, byteCount: byteCount, isLookedAt: isLookedAt)
        return try SystemPmem(isForced: isForced).open(request)
    }

    /// Why it cannot be opened; nil if it can.
    private func refusal(
        _ path: String? = nil, byteCount: Int = Self.byteCount, isLookedAt: Bool = false, isForced: Bool = true
    ) -> PmemOpenError? {
        do throws(PmemOpenError) {
            _ = try open(path, byteCount: byteCount, isLookedAt: isLookedAt, isForced: isForced)
            return nil
        } catch {
            return error
        }
    }

    private var names: String? { run("ls '\(scratch.path)'") }
    /// Size in bytes, whether all of it is allocated, and access rights.
    private var shape: String? { run("stat -c '%s %b %B %a' '\(path)'") }

    private func isZero(_ file: PmemFile) -> Bool { bytes(file).allSatisfy { $0 == 0 } }

    @Test func aFileIsMadeAndFoundAgain() throws {
        var random = SeededRandom(seed: runSeed("PmemFilesTests"))
        let content = (0..<Self.byteCount / 8).map { _ in random.next() as UInt64 }
        do {
            let file = try open()
            #expect(file.note?.contains("NOT durable when power fails") == true)
            #expect(file.region.capacity == Self.byteCount && file.region.backedByteCount == Self.byteCount)
            #expect(file.region.needsPersist && isZero(file) && names == "a.pmem")
            #expect(file.region.grow(to: Self.byteCount) && !file.region.grow(to: Self.byteCount + 1))
            content.withUnsafeBytes { file.region.base.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
            file.region.persist(offset: 0, byteCount: Self.byteCount)
            withExtendedLifetime(file) {}
        }
        let words = try #require(shape).split(separator: " ").compactMap { Int($0) }
        #expect(words[0] == Self.byteCount && words[1] * words[2] >= Self.byteCount && words[3] == 600)
        // The size of what is there stays, whatever is asked for.
        for (byteCount, isLookedAt) in [(Self.byteCount, false), (2 << 20, false), (0, false), (0, true), (1, true)] {
            let file = try open(byteCount: byteCount, isLookedAt: isLookedAt)
            #expect(file.region.capacity == Self.byteCount && (file.note == nil) == isLookedAt)
            #expect(content.withUnsafeBytes { bytes(file).elementsEqual($0) })
        }
        #expect(names == "a.pmem")
    }

    /// A file with holes gets its blocks: touching it never finds the file system full.
    @Test func aFileWithHolesIsAllocated() throws {
        #expect(run("truncate -s \(Self.byteCount) '\(path)' && printf x | dd of='\(path)' conv=notrunc 2>&1") != nil)
        #expect(try bytes(open())[0] == UInt8(ascii: "x"))
        let words = try #require(shape).split(separator: " ").compactMap { Int($0) }
        #expect(words[0] == Self.byteCount && words[1] * words[2] >= Self.byteCount)
    }

    /// A process that was killed while it made the file: at first, in the middle, and with more than is wanted now.
    @Test(arguments: [0, 4096, 3 << 20]) func whatAKilledProcessLeftIsMadeAnew(_ left: Int) throws {
        #expect(run("head -c \(left) /dev/urandom > '\(path).new'") != nil)
        #expect(refusal(isLookedAt: true) == PmemOpenError("does not exist", isMissing: true))
        let file = try open()
        #expect(file.region.capacity == Self.byteCount && isZero(file) && names == "a.pmem")
    }

    /// What versions before this one left when they were killed, or a mistaken `touch`.
    @Test func anEmptyFileIsAsGoodAsNone() throws {
        #expect(run("touch '\(path)'") != nil)
        #expect(refusal(byteCount: 0) == PmemOpenError("is empty"))
        #expect(refusal(byteCount: 0, isLookedAt: true) == PmemOpenError("is empty"))
        #expect(refusal(isLookedAt: true) == PmemOpenError("does not exist", isMissing: true))
        #expect(run("stat -c %s '\(path)'") == "0")
        let file = try open()
        #expect(file.region.capacity == Self.byteCount && isZero(file) && names == "a.pmem")
    }

    @Test func whatIsMissingIsNotMadeUnasked() {
        let missing = PmemOpenError("does not exist", isMissing: true)
        #expect(refusal(isLookedAt: true) == missing && refusal(byteCount: 0) == missing)
        #expect(refusal(byteCount: 0, isLookedAt: true) == missing && names == "")
        let nowhere = refusal(scratch.path + "/none/a.pmem")
        #expect(nowhere?.isMissing == false)
        #expect(nowhere?.sentence.hasPrefix("cannot be made, as \(scratch.path)/none/a.pmem.new: No such file") == true)
    }

    @Test(arguments: [false, true]) func aFileHasOneUser(_ isLookedAt: Bool) throws {
        let file = try open()
        let busy = PmemOpenError("is in use by another process, or named twice")
        #expect(refusal(isLookedAt: isLookedAt) == busy)
        put(7, file)
        file.unlock()
        let next = try open(isLookedAt: isLookedAt)
        #expect(number(next) == 7)
        // Who only looks keeps nobody out.
        if isLookedAt { #expect(refusal() == nil) }
        withExtendedLifetime((file, next)) {}
    }

    /// One that another process is making is not made a second time, and stays that process's.
    @Test func aFileThatIsBeingMadeIsItsMakers() throws {
        let making = Glibc.open(path + ".new", O_RDWR | O_CREAT, 0o600)
        #expect(making >= 0 && flock(making, LOCK_EX) == 0)
        defer { close(making) }
        #expect(refusal() == PmemOpenError("is in use by another process, or named twice") && names == "a.pmem.new")
    }

    /// All of them want to make it at once: one does, and all add to the same file.
    @Test func manyMakersMakeOneFile() throws {
        let (threads, rounds) = (4, 12)
        let failures = Atomic<Int>(0)
        for round in 0..<rounds {
            let path = scratch.path + "/\(round)"
            if round % 2 == 1 { _ = run("touch '\(path)'") }
            onThreads(threads) { _ in
                let request = PmemRequest(path: path, byteCount: 4096, isLookedAt: false)
                guard let file = try? SystemPmem(isForced: true).open(request) else {
                    failures.add(1, ordering: .relaxed)
                    return
                }
                put(number(file) + 1, file)
            }
            #expect(try number(open(path)) == threads)
        }
        #expect(failures.load(ordering: .relaxed) == 0 && run("ls '\(scratch.path)' | grep -c new") == nil)
    }

    @Test func otherKindsAreRefused() throws {
        let folder = scratch.mount("folder")
        #expect(refusal(folder)?.sentence.hasPrefix("cannot be opened: Is a directory") == true)
        #expect(refusal(folder, isLookedAt: true) == PmemOpenError("is not a file"))
        #expect(mkfifo(path, 0o600) == 0)
        #expect(refusal() == PmemOpenError("is not a file") && refusal(isLookedAt: true) == PmemOpenError("is not a file"))
        #expect(refusal(path + "/a")?.sentence.hasPrefix("cannot be opened: Not a directory") == true)
        // A name for nothing: the file would lie here, not where the link points.
        let link = scratch.path + "/link"
        #expect(symlink("none", link) == 0)
        #expect(refusal(link)?.sentence.hasPrefix("is a symbolic link to a file that is missing or empty") == true)
        #expect(run("readlink '\(link)'") == "none")
        #expect(symlink("/etc/passwd", scratch.path + "/b.new") == 0)
        #expect(refusal(scratch.path + "/b")?.sentence.hasPrefix("cannot be made, as \(scratch.path)/b.new") == true)
        #expect(names == "a.pmem\nb.new\nfolder\nlink")
    }

    /// A link to a file that is there is that file.
    @Test func aLinkIsFollowed() throws {
        try put(7, open())
        let link = scratch.path + "/link"
        #expect(symlink("a.pmem", link) == 0)
        #expect(try number(open(link)) == 7)
    }

    @Test func memoryThatIsNotPersistentIsRefusedUnlessForced() throws {
        let words = "is not on persistent memory: put it on the ext4 or XFS of a pmem device"
        #expect(refusal(isForced: false)?.sentence.hasPrefix(words) == true && names == "")
        #expect(run("touch '\(path)'") != nil)
        #expect(refusal(isForced: false)?.sentence.hasPrefix(words) == true)
        #expect(names == "a.pmem" && run("stat -c %s '\(path)'") == "0")
        try put(7, open())
        #expect(refusal(isForced: false)?.sentence.hasPrefix(words) == true)
        // Looking needs nothing that lasts.
        #expect(try number(open(isLookedAt: true, isForced: false)) == 7)
    }

    @Test func aFullFileSystemIsSaidAndLeftAsItWas() throws {
        guard let small = try SmallMount("size=1M") else { return }
        let sentence = refusal(small.path + "/a", byteCount: 2 << 20)?.sentence
        #expect(sentence == "needs 2097152 bytes and its file system has 1048576 bytes free")
        #expect(run("ls '\(small.path)'") == "")
    }
}

// The memory goes with its region: what is done to it keeps the region.

private func bytes(_ file: PmemFile) -> [UInt8] {
    withExtendedLifetime(file) { Array(UnsafeRawBufferPointer(start: file.region.base, count: file.region.capacity)) }
}

private func number(_ file: PmemFile) -> Int {
    withExtendedLifetime(file) { file.region.base.load(as: Int.self) }
}

private func put(_ number: Int, _ file: PmemFile) {
    withExtendedLifetime(file) { file.region.base.storeBytes(of: number, as: Int.self) }
}
