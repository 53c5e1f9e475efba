// Directories of the kit's own: made, copied while somebody writes to them, and deleted.
internal import Glibc
internal import Storage

/// A directory in `$TMPDIR` (or `/tmp`) with numbered directories inside. One thread, but `makeDirectory` any.
final class TemporaryTree: @unchecked Sendable {
    // `lseek` beyond POSIX: the next byte that is no hole, and the next hole.
    private static let seekData: Int32 = 3
    private static let seekHole: Int32 = 4
    private static let attemptsMax = 50
    private let root: String
    private var count = 0
    private var isMade = false

    init() {
        let place = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        root = "\(place)/apus-kit-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
    }

    deinit { removeAll() }

    /// The path of a directory that does not exist yet.
    func newPath() throws(StorageError) -> String {
        if !isMade { try makeDirectory(root) }
        isMade = true
        count += 1
        return "\(root)/\(count)"
    }

    /// Makes a directory unless it is there.
    func makeDirectory(_ path: String) throws(StorageError) {
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else { throw .device(errno: errno, operation: "make \(path)") }
    }

    /// Deletes everything.
    func removeAll() {
        guard isMade else { return }
        remove(root)
        isMade = false
    }

    private func remove(_ path: String) {
        for name in names(path) where unlink(path + "/" + name) != 0 { remove(path + "/" + name) }
        rmdir(path)
    }

    private func names(_ path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    // ---- Copying ----

    /// Copies a directory as it is at one moment: again if anything in it has changed meanwhile.
    func copy(_ source: String, to target: String) throws(StorageError) {
        for _ in 0..<TemporaryTree.attemptsMax {
            let before = state(source)
            remove(target)
            if try copyOnce(source, to: target), state(source) == before { return }
            usleep(2000)
        }
        throw .device(errno: EBUSY, operation: "copy \(source), which never stops changing")
    }

    /// Name, size and time of last change of every file.
    private func state(_ path: String) -> [String] {
        names(path).flatMap { name in
            let place = path + "/" + name
            var facts = stat()
            guard lstat(place, &facts) == 0 else { return ["\(place) gone"] }
            let own = "\(place) \(facts.st_ino) \(facts.st_size) \(facts.st_mtim.tv_sec).\(facts.st_mtim.tv_nsec)"
            return facts.st_mode & S_IFMT == S_IFDIR ? [own] + state(place) : [own]
        }
    }

    /// False if something went away meanwhile.
    private func copyOnce(_ source: String, to target: String) throws(StorageError) -> Bool {
        try makeDirectory(target)
        for name in names(source) {
            let from = source + "/" + name
            var facts = stat()
            guard lstat(from, &facts) == 0 else { return false }
            if facts.st_mode & S_IFMT == S_IFDIR {
                guard try copyOnce(from, to: target + "/" + name) else { return false }
            } else if facts.st_mode & S_IFMT == S_IFREG {
                guard try copyFile(from, to: target + "/" + name) else { return false }
            }
        }
        return true
    }

    private func copyFile(_ source: String, to target: String) throws(StorageError) -> Bool {
        let input = open(source, O_RDONLY)
        guard input >= 0 else { return false }
        defer { close(input) }
        let output = open(target, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        guard output >= 0 else { throw .device(errno: errno, operation: "make \(target)") }
        defer { close(output) }
        var facts = stat()
        guard fstat(input, &facts) == 0, ftruncate(output, facts.st_size) == 0 else {
            throw .device(errno: errno, operation: "copy \(source)")
        }
        // Holes stay holes: a memory-mapped file is often nothing else.
        var place = lseek(input, 0, TemporaryTree.seekData)
        while place >= 0, place < facts.st_size {
            let end = lseek(input, place, TemporaryTree.seekHole)
            try copyBytes(input, output, place..<max(end, place + 1), source)
            place = lseek(input, max(end, place + 1), TemporaryTree.seekData)
        }
        return true
    }

    private func copyBytes(_ input: Int32, _ output: Int32, _ range: Range<Int>, _ source: String) throws(StorageError) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 16)
        defer { buffer.deallocate() }
        var place = range.lowerBound
        while place < range.upperBound {
            let count = pread(input, buffer.baseAddress, min(buffer.count, range.upperBound - place), place)
            guard count >= 0 else { throw .device(errno: errno, operation: "read \(source)") }
            if count == 0 { return }
            guard pwrite(output, buffer.baseAddress, count, place) == count else {
                throw .device(errno: errno, operation: "write a copy of \(source)")
            }
            place += count
        }
    }
}
