// The store behind the template: one directory of files. Every call may block; any thread.
//
// Invariant: a name without `.new` is a whole file as far as the process goes; `.new` is a write that never ended.
internal import Glibc
internal import Storage

/// Files in one directory, by name.
struct Folder {
    private let handle: Int32

    init(_ path: String) throws(StorageError) {
        handle = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard handle >= 0 else { throw Folder.failure("open \(path)") }
        do throws(StorageError) {
            for name in try names() where name.hasSuffix(".new") { try remove(name) }
        } catch {
            close()
            throw error
        }
    }

    func close() { _ = Glibc.close(handle) }

    private static func failure(_ operation: String) -> StorageError {
        errno == ENOSPC || errno == EDQUOT ? .outOfSpace : .device(errno: errno, operation: operation)
    }

    func names() throws(StorageError) -> [String] {
        let own = openat(handle, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard own >= 0 else { throw Folder.failure("list the directory") }
        guard let listing = fdopendir(own) else {
            let reason = Folder.failure("list the directory")
            _ = Glibc.close(own)
            throw reason
        }
        defer { closedir(listing) }
        var names: [String] = []
        errno = 0  // The end sets none, an error does.
        while let entry = readdir(listing) {
            withUnsafeBytes(of: entry.pointee.d_name) { name in
                names.append(String(decoding: name.prefix { $0 != 0 }, as: UTF8.self))
            }
            errno = 0
        }
        guard errno == 0 else { throw Folder.failure("list the directory") }
        return names
    }

    /// Bytes of a file; nil if there is none.
    func size(_ name: String) throws(StorageError) -> Int? {
        var status = stat()
        guard fstatat(handle, name, &status, 0) == 0 else {
            guard errno == ENOENT else { throw Folder.failure("look at \(name)") }
            return nil
        }
        return try Folder.size(name, status)
    }

    /// Directories have sizes too, but hold no images.
    private static func size(_ name: String, _ status: stat) throws(StorageError) -> Int {
        guard status.st_mode & S_IFMT == S_IFREG else { throw .medium("template: \(name) is no regular file") }
        return Int(status.st_size)
    }

    /// What a file holds, to be deallocated by the caller; nil if there is none.
    func read(_ name: String) throws(StorageError) -> UnsafeMutableRawBufferPointer? {
        let file = openat(handle, name, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            guard errno == ENOENT else { throw Folder.failure("open \(name)") }
            return nil
        }
        defer { _ = Glibc.close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw Folder.failure("look at \(name)") }
        let size = try Folder.size(name, status)
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 16)
        errno = EIO  // A short read sets no errno.
        guard pread(file, bytes.baseAddress, bytes.count, 0) == bytes.count else {
            let reason = Folder.failure("read \(name)")
            bytes.deallocate()
            throw reason
        }
        return bytes
    }

    /// Puts `bytes` in the place of what the file held, in one step; `durably`: the new bytes are on the medium before
    /// the old are gone.
    func replace(_ name: String, _ bytes: UnsafeRawBufferPointer, durably: Bool) throws(StorageError) {
        let fresh = name + ".new"
        let file = openat(handle, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw Folder.failure("open \(fresh)") }
        errno = ENOSPC  // A short write sets no errno: the medium is full.
        let isWritten = write(file, bytes.baseAddress, bytes.count) == bytes.count && (!durably || fdatasync(file) == 0)
        let problem = isWritten ? nil : Folder.failure("write \(fresh)")
        _ = Glibc.close(file)
        if problem == nil, renameat(handle, fresh, handle, name) == 0 { return }
        let reason = problem ?? Folder.failure("rename \(fresh)")
        unlinkat(handle, fresh, 0)
        throw reason
    }

    func remove(_ name: String) throws(StorageError) {
        guard unlinkat(handle, name, 0) == 0 || errno == ENOENT else { throw Folder.failure("remove \(name)") }
    }

    /// What has been done to this file is on the medium.
    func sync(_ name: String) throws(StorageError) {
        let file = openat(handle, name, O_RDONLY | O_CLOEXEC)
        guard file >= 0 || errno == ENOENT else { throw Folder.failure("open \(name)") }
        defer { if file >= 0 { _ = Glibc.close(file) } }
        guard file < 0 || fdatasync(file) == 0, fsync(handle) == 0 else { throw Folder.failure("sync \(name)") }
    }

    // ---- Small files of the backend's own: old or new after a crash, durable at once ----

    func load(_ name: String) throws(StorageError) -> [UInt8] {
        guard let bytes = try read(name) else { return [] }
        defer { bytes.deallocate() }
        return Array(bytes)
    }

    func store(_ name: String, _ bytes: [UInt8]) throws(StorageError) {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
        defer { copy.deallocate() }
        copy.copyBytes(from: bytes)
        try replace(name, UnsafeRawBufferPointer(copy), durably: true)
        guard fsync(handle) == 0 else { throw Folder.failure("sync the directory") }
    }
}
