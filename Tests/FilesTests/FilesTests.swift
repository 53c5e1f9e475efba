import Files
import Glibc
import TestSupport
import Testing

/// Files and directories in one of /tmp that goes with the test.
@Suite struct FilesTests {
    private final class Directory {
        let path: String
        init() {
            var template = Array("/tmp/apus-files-XXXXXX".utf8CString)
            path = realPath(String(cString: mkdtemp(&template)!))!
        }
        deinit { _ = system("rm -rf '\(path)'") }
    }

    private func thrown(_ body: () throws(FileError) -> Void) -> FileError? {
        do throws(FileError) {
            try body()
            return nil
        } catch {
            return error
        }
    }

    // ---- Reading ----

    /// Sizes round a block that is read at once: none, one less, just so, one more.
    @Test func whatIsWrittenIsRead() throws {
        let directory = Directory()
        let file = directory.path + "/file"
        let seed = runSeed("FilesTests")
        for size in [0, 1, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 200_000] {
            let bytes = (0..<size).map { UInt8(truncatingIfNeeded: UInt64($0) &* 31 &+ seed) }
            try replaceFile(file, with: bytes)
            #expect(try readFile(file, byteCountMax: size) == bytes)
            #expect(try readEnd(of: file, byteCount: 70_000) == Array(bytes.suffix(70_000)))
        }
    }

    @Test func aFileThatIsTooLargeIsNotRead() throws {
        let directory = Directory()
        let file = directory.path + "/file"
        try replaceFile(file, with: [1, 2, 3])
        let error = thrown { () throws(FileError) in _ = try readFile(file, byteCountMax: 2) }
        #expect(error == FileError(.read, file, reason: EFBIG))
        #expect(try readFile(file, byteCountMax: 3) == [1, 2, 3])
    }

    @Test func whatIsNotThere() throws {
        let directory = Directory()
        let file = directory.path + "/none"
        let missing = FileError(.read, file, reason: ENOENT)
        #expect(thrown { () throws(FileError) in _ = try readFile(file, byteCountMax: 9) } == missing)
        #expect(thrown { () throws(FileError) in _ = try readEnd(of: file, byteCount: 9) } == missing)
        #expect(thrown { () throws(FileError) in _ = try fileNames(in: file) } == missing)
        #expect(try readFileIfThere(file, byteCountMax: 9) == nil)
        #expect(readSmallFile(file).isEmpty && realPath(file) == nil && absolutePath(file) == file)
        // Only that there is none is no error.
        let reason = thrown { () throws(FileError) in _ = try readFileIfThere(directory.path, byteCountMax: 9) }?.reason
        #expect(reason == EISDIR)
    }

    /// They say that they have no bytes.
    @Test func filesOfTheSystemAreRead() {
        #expect(readSmallFile("/proc/self/status").contains("Pid:\t\(getpid())\n"))
    }

    // ---- Replacing ----

    @Test func aFileIsReplacedWhole() throws {
        let directory = Directory()
        let file = directory.path + "/file"
        try replaceFile(file, with: Array("the first, which is longer".utf8))
        let first = open(file, O_RDONLY)
        defer { close(first) }
        try replaceFile(file, with: Array("second".utf8))
        #expect(readSmallFile(file) == "second")
        #expect(lseek(first, 0, SEEK_END) == 26, "the first was not written over")
        #expect(try fileNames(in: directory.path) == ["file"], "nothing is left beside it")
    }

    @Test func whatFailsLeavesTheOldFile() throws {
        let directory = Directory()
        let file = directory.path + "/file"
        try replaceFile(file, with: [1])
        // A directory where the new file is to be: the tests may run as root, whom no mode stops.
        mkdir(file + ".new", 0o755)
        let error = thrown { () throws(FileError) in try replaceFile(file, with: [2]) }
        #expect(error == FileError(.write, file + ".new", reason: EISDIR))
        #expect(try readFile(file, byteCountMax: 9) == [1])
        mkdir(directory.path + "/folder", 0o755)
        let other = thrown { () throws(FileError) in try replaceFile(directory.path + "/folder", with: [2]) }
        #expect(other == FileError(.replace, directory.path + "/folder", reason: EISDIR))
    }

    /// A device that takes no byte.
    @Test func aFullFileSystemIsNoticed() throws {
        let directory = Directory()
        let file = directory.path + "/file"
        symlink("/dev/full", file + ".new")
        let error = thrown { () throws(FileError) in try replaceFile(file, with: [1]) }
        #expect(error == FileError(.write, file + ".new", reason: ENOSPC))
        #expect(error?.sentence == "cannot write \(file).new: No space left on device; make room on its file system")
    }

    // ---- Directories and names ----

    @Test func directoriesAreMadeWithWhatIsAbove() throws {
        let directory = Directory()
        let path = directory.path + "/a//b/c"
        try makeDirectory(path)
        try makeDirectory(path + "/")
        #expect(try fileNames(in: directory.path + "/a/b") == ["c"])
        try replaceFile(directory.path + "/file", with: [])
        let error = thrown { () throws(FileError) in try makeDirectory(directory.path + "/file/d/e") }
        #expect(error == FileError(.make, directory.path + "/file/d", reason: ENOTDIR))
    }

    @Test func namesAreSorted() throws {
        let directory = Directory()
        let long = String(repeating: "l", count: 255)
        for name in ["b", ".hidden", "a", long] { try makeEmpty(directory.path + "/" + name) }
        #expect(try fileNames(in: directory.path) == [".hidden", "a", "b", long])
    }

    /// Makes an empty file: the longest name leaves no room for `.new`.
    private func makeEmpty(_ path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT, 0o644)
        try #require(descriptor >= 0)
        close(descriptor)
    }

    @Test func pathsWithoutLinks() throws {
        let directory = Directory()
        try makeDirectory(directory.path + "/real")
        symlink("real", directory.path + "/link")
        #expect(realPath(directory.path + "/link/../link") == directory.path + "/real")
        #expect(parentDirectory(of: "/a/b") == "/a" && parentDirectory(of: "/a") == "/" && parentDirectory(of: "a") == ".")
    }

    // ---- Words ----

    @Test func errorsSayWhatWhereAndWhatToDo() {
        #expect(FileError(.settle, "/x", reason: EIO).text == "cannot make /x durable: Input/output error")
        #expect(FileError(.open, "/x", reason: EINVAL).sentence == "cannot open /x: Invalid argument")
        let reasons = [ENOENT, ENOTDIR, EACCES, EPERM, EROFS, ENOSPC, EDQUOT, EMFILE, ENFILE, EIO, EFBIG, EISDIR]
        for reason in reasons {
            let error = FileError(.make, "/x", reason: reason)
            #expect(error.sentence.hasPrefix("cannot make /x: \(errnoText(reason)); "))
        }
    }
}
