// A plugin that lives in the test itself: a keyed backend in memory, written as the C functions that a shared object
// would export, with switches that make it answer late, fail, or break the contract.
import Base
import CBackend
import Foreign
import Glibc
import Storage
import Synchronization
import Testing

/// What a slot answers instead of working.
struct Answer {
    var status: Int32
    var number: Int32 = 0
    var limit: UInt64 = 0
    var text = ""
}

/// One open namespace of the test plugin. Tests run each on one thread.
final class TestStore {
    var images: [Digest: (location: UInt64, bytes: [UInt8])] = [:]
    var blob: [UInt8] = []
    var metadata: [[UInt8]] = []
    var lastLocation: UInt64 = 0
    var openedWith: [String] = []
    var events: [String] = []
    var logger: ((String) -> Void)?
    /// Answers `pending` and ends the operation in poll.
    var isLate = false
    /// The next call of any slot that can fail answers this.
    var next: Answer?
    /// Completions that poll has still to hand over.
    var ready: [apus_completion] = []
    var wideLocation = false
    var lendsNothing = false
    var lendsTooMuch = false
    var goesOnAfterStop = false
    var gaveTooManyCompletions = false
    var pressure: UInt32 = 0
    var depth = 0
    var reentered = false
    var shards: [TestShard] = []
    /// How long `statistics` takes, in microseconds, and whether it was called.
    var figuresTake: UInt32 = 0
    let figuresAsked = Signal()

    /// The store that the backend most recently opened on this thread belongs to.
    @TaskLocal static var current = Box()
    final class Box: @unchecked Sendable { var store: TestStore? }
}

/// Set once, by any thread.
final class Signal: Sendable {
    private let flag = Atomic(false)
    var isSet: Bool { flag.load(ordering: .acquiring) }
    func set() { flag.store(true, ordering: .releasing) }
}

final class TestShard {
    let store: TestStore
    var wake: () -> Void
    var lent: [UnsafeMutableRawBufferPointer] = []

    init(_ store: TestStore, wake: @escaping () -> Void) {
        self.store = store
        self.wake = wake
    }

    func lend(_ bytes: [UInt8]) -> apus_bytes {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
        copy.copyBytes(from: bytes)
        lent.append(copy)
        return apus_bytes(bytes: copy.baseAddress, size: UInt64(copy.count))
    }

    func takeBack() {
        for bytes in lent { bytes.deallocate() }
        lent = []
    }

    /// What the test wants the slot to answer; nil to work.
    func forced(_ error: UnsafeMutablePointer<apus_error>?) -> Int32? { store.forced(error) }
}

extension TestStore {
    func forced(_ error: UnsafeMutablePointer<apus_error>?) -> Int32? {
        guard let answer = next else { return nil }
        next = nil
        error?.pointee = apus_error(answer)
        return answer.status
    }

    func end(_ tag: UInt64, _ change: (inout apus_completion) -> Void) -> Int32 {
        var completion = apus_completion()
        completion.tag = tag
        change(&completion)
        ready.append(completion)
        return APUS_PENDING
    }
}

extension apus_error {
    init(_ answer: Answer) {
        self.init()
        number = answer.number
        limit = answer.limit
        withUnsafeMutableBytes(of: &text) { $0.copyBytes(from: Array(answer.text.utf8).prefix($0.count)) }
    }
}

/// The words of a C string.
private func words(_ text: UnsafePointer<CChar>?) -> String { text.map { String(cString: $0) } ?? "" }

private func store(_ handle: UnsafeMutableRawPointer?) -> TestStore {
    Unmanaged<TestStore>.fromOpaque(handle!).takeUnretainedValue()
}

private func shard(_ handle: UnsafeMutableRawPointer?) -> TestShard {
    Unmanaged<TestShard>.fromOpaque(handle!).takeUnretainedValue()
}

/// Texts that live as long as the process, as those of a shared object do.
func constant(_ text: String) -> UnsafePointer<CChar> {
    let bytes = Array(text.utf8CString)
    let copy = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count)
    copy.initialize(from: bytes, count: bytes.count)
    return UnsafePointer(copy)
}

/// An array that lives as long as the process.
func constant<Element>(_ elements: [Element]) -> UnsafePointer<Element> {
    let copy = UnsafeMutablePointer<Element>.allocate(capacity: max(elements.count, 1))
    copy.initialize(from: elements, count: elements.count)
    return UnsafePointer(copy)
}

func setting(
    _ name: String, _ kind: UInt32, default standard: String? = nil, from low: UInt64 = 0, to high: UInt64 = 0,
    words: [String]? = nil, help: String? = "a setting"
) -> apus_setting {
    var setting = apus_setting()
    setting.name = constant(name)
    setting.kind = kind
    setting.default_text = standard.map { constant($0) }
    setting.minimum = low
    setting.maximum = high
    setting.words = words.map { constant($0.map { Optional(constant($0)) } + [nil]) }
    setting.help = help.map { constant($0) }
    return setting
}

/// The struct of a plugin without faults.
func goodTable() -> apus_backend {
    var table = apus_backend()
    table.magic = APUS_BACKEND_MAGIC
    table.size = UInt32(MemoryLayout<apus_backend>.size)
    table.version_major = UInt16(APUS_VERSION_MAJOR)
    table.version_minor = UInt16(APUS_VERSION_MINOR)
    table.name = constant("test-plugin")
    table.format_min = 1
    table.format_max = 3
    table.capabilities = APUS_KEYED | APUS_DURABLE_AT_COMMIT | APUS_DELETES_LAST
    table.medium = APUS_MEDIUM_DIRECTORY
    table.image_size_max = 1 << 20
    table.location_bits = 40
    table.atomic_write_size = 4096
    let settings = [
        setting("cache-size", APUS_SETTING_SIZE, default: "16M", from: 1 << 20, to: 1 << 40),
        setting("mode", APUS_SETTING_WORD, default: "safe", words: ["safe", "lazy"]),
        setting("hosts", APUS_SETTING_LIST),
    ]
    table.settings = constant(settings)
    table.setting_count = UInt32(settings.count)
    fillLife(&table)
    fillMetadata(&table)
    fillScan(&table)
    fillAppend(&table)
    fillOthers(&table)
    return table
}

private func fillLife(_ table: inout apus_backend) {
    table.open = { request, handle, error in
        let made = TestStore.current.store ?? TestStore()
        if let status = made.forced(error) { return status }
        let request = request!.pointee
        made.openedWith = [words(request.namespace_name), words(request.directory), "\(request.format)",
            "\(request.capabilities)", "\(request.stored_format)"]
        for number in 0..<Int(request.setting_count) {
            let pair = request.settings![number]
            made.openedWith.append("\(words(pair.name))=\(words(pair.value))")
        }
        made.logger = { line in line.withCString { request.log(request.log_context, $0) } }
        TestStore.current.store = made
        handle!.pointee = Unmanaged.passRetained(made).toOpaque()
        return APUS_DONE
    }
    table.close = { handle, error in
        let closing = Unmanaged<TestStore>.fromOpaque(handle!).takeRetainedValue()
        closing.events.append("close")
        return closing.forced(error) ?? APUS_DONE
    }
    table.make_shard = { handle, request, shard, error in
        let store = store(handle)
        if let status = store.forced(error) { return status }
        let request = request!.pointee
        let made = TestShard(store, wake: { request.wake(request.wake_context) })
        store.events.append("shard \(request.index) of \(request.count)")
        store.shards.append(made)
        shard!.pointee = Unmanaged.passRetained(made).toOpaque()
        return APUS_DONE
    }
    table.end_shard = { handle in
        let ending = Unmanaged<TestShard>.fromOpaque(handle!).takeRetainedValue()
        ending.takeBack()
        ending.store.events.append("end")
    }
}

private func fillMetadata(_ table: inout apus_backend) {
    table.load_blob = { handle, sink, context, error in
        let store = store(handle)
        if !store.blob.isEmpty { store.blob.withUnsafeBytes { sink!(context, $0.baseAddress, UInt64($0.count)) } }
        return store.forced(error) ?? APUS_DONE
    }
    table.store_blob = { handle, bytes, size, error in
        let store = store(handle)
        if let status = store.forced(error) { return status }
        store.blob = Array(UnsafeRawBufferPointer(start: bytes, count: Int(size)))
        return APUS_DONE
    }
    table.load_metadata = { handle, sink, context, error in
        let store = store(handle)
        for part in store.metadata { part.withUnsafeBytes { sink!(context, $0.baseAddress, UInt64($0.count)) } }
        return store.forced(error) ?? APUS_DONE
    }
    table.store_metadata = { handle, parts, count, error in
        let store = store(handle)
        if let status = store.forced(error) { return status }
        store.metadata = (0..<Int(count)).map { number in
            Array(UnsafeRawBufferPointer(start: parts![number].bytes, count: Int(parts![number].size)))
        }
        return APUS_DONE
    }
    table.statistics = { handle, figures in
        let store = store(handle)
        store.figuresAsked.set()
        if store.figuresTake > 0 {
            usleep(store.figuresTake)
            store.events.append("figures")
        }
        figures!.pointee.total_bytes = 1 << 30
        figures!.pointee.used_bytes = UInt64(store.images.values.reduce(0) { $0 + $1.bytes.count })
        figures!.pointee.pressure = store.pressure
        figures!.pointee.detail_count = 2
        withUnsafeMutableBytes(of: &figures!.pointee.details) { bytes in
            bytes.copyBytes(from: Array("readers".utf8))
            UnsafeMutableRawBufferPointer(rebasing: bytes[32...]).copyBytes(from: Array("17".utf8))
            UnsafeMutableRawBufferPointer(rebasing: bytes[96...]).copyBytes(from: Array("evil".utf8))
            UnsafeMutableRawBufferPointer(rebasing: bytes[128...]).copyBytes(from: Array("a;b=c".utf8))
        }
    }
}

private func fillScan(_ table: inout apus_backend) {
    table.scan = { handle, segment, count, visit, context, error in
        let store = store(handle)
        if let status = store.forced(error) { return status }
        let all = store.images.sorted { $0.key < $1.key }.filter { Int($0.key[0]) % Int(count) == Int(segment) }
        for (digest, image) in all {
            var bytes = [UInt8](repeating: 0, count: 20)
            bytes.withUnsafeMutableBytes { digest.store(to: $0.baseAddress!) }
            let decision = bytes.withUnsafeBufferPointer { digestBytes in
                image.bytes.withUnsafeBytes { image in
                    var scanned = apus_scanned()
                    scanned.digest = digestBytes.baseAddress
                    scanned.location = store.images[digest]!.location
                    scanned.image = apus_bytes(bytes: image.baseAddress, size: UInt64(image.count))
                    var replaced = apus_replaced()
                    return visit!(context, &scanned, &replaced)
                }
            }
            store.events.append("decision \(decision)")
            if decision == APUS_STALE { store.images[digest] = nil }
            if decision == APUS_STOP, !store.goesOnAfterStop { break }
        }
        return APUS_DONE
    }
}

private func fillAppend(_ table: inout apus_backend) {
    table.append = { handle, digest, image, size, stream, tag, location, error in
        let shard = shard(handle)
        let store = shard.store
        if store.depth > 0 { store.reentered = true }
        if let status = shard.forced(error) { return status }
        store.lastLocation += 1
        let place = store.wideLocation ? 1 << 40 : store.lastLocation
        store.images[Digest(digest!)] = (place, Array(UnsafeRawBufferPointer(start: image, count: Int(size))))
        if store.isLate { return store.end(tag) { $0.location = place } }
        location!.pointee = place
        return APUS_DONE
    }
}

private func fillOthers(_ table: inout apus_backend) {
    table.read = { handle, digest, location, size, tag, image, error in
        let shard = shard(handle)
        let store = shard.store
        if let status = shard.forced(error) { return status }
        let found = store.images[Digest(digest!)]?.bytes
        if store.isLate {
            return store.end(tag) { completion in
                if let found { completion.image = shard.lend(found) } else { completion.status = APUS_ABSENT }
            }
        }
        guard let found else { return APUS_ABSENT }
        image!.pointee = store.lendsNothing ? apus_bytes() : shard.lend(found)
        if store.lendsTooMuch { image!.pointee.size = 1 << 40 }
        return APUS_DONE
    }
    table.remove = { handle, digest, location, tag, error in
        let shard = shard(handle)
        if let status = shard.forced(error) { return status }
        shard.store.images[Digest(digest!)] = nil
        return shard.store.isLate ? shard.store.end(tag) { _ in } : APUS_DONE
    }
    table.commit = { handle, digest, tag, error in
        let shard = shard(handle)
        if let status = shard.forced(error) { return status }
        return shard.store.isLate ? shard.store.end(tag) { _ in } : APUS_DONE
    }
    table.poll = { handle, completions, capacity in
        let store = shard(handle).store
        store.depth += 1
        defer { store.depth -= 1 }
        let count = min(Int(capacity), store.ready.count)
        for number in 0..<count { completions![number] = store.ready[number] }
        store.ready.removeFirst(count)
        return store.gaveTooManyCompletions ? capacity + 1 : UInt32(count)
    }
    table.turn_ended = { handle, sleeping in
        shard(handle).takeBack()
        shard(handle).store.events.append("turn \(sleeping)")
    }
    table.pressure = { handle in shard(handle).store.pressure }
}

/// A loader that knows one file, `/plugins/test.so`, whose entry returns the given struct.
final class FakeLoader {
    private static let gate = Mutex<Void>(())
    nonisolated(unsafe) private static var entryResult: UnsafePointer<apus_backend>?
    private(set) var closed = 0
    var hasSymbol = true
    static let path = "/plugins/test.so"

    /// Loads a plugin whose entry returns `table`.
    func load(_ table: UnsafePointer<apus_backend>?,
        path: String = FakeLoader.path) throws(PluginError) -> BackendDescriptor {
        let loader = PluginLoader(
            open: { path in
                path == FakeLoader.path
                    ? .library(UnsafeMutableRawPointer(bitPattern: 0x1000)!) : .refused("no such file")
            },
            symbol: { [self] _, name in
                let entry: @convention(c) () -> UnsafePointer<apus_backend>? = { FakeLoader.entryResult }
                return hasSymbol && name == "apus_backend_entry"
                    ? unsafeBitCast(entry, to: UnsafeMutableRawPointer.self) : nil
            },
            close: { [self] _ in closed += 1 })
        let result: Result<BackendDescriptor, PluginError> = FakeLoader.gate.withLock { _ in
            FakeLoader.entryResult = table
            do throws(PluginError) {
                return .success(try Foreign.load(path: path, with: loader))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    /// Loads the good plugin after `change`.
    func load(_ change: (inout apus_backend) -> Void) throws(PluginError) -> BackendDescriptor {
        var table = goodTable()
        change(&table)
        return try load(constant([table]))
    }
}
