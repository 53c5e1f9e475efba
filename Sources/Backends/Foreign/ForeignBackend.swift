// One namespace of a plugin. Invariants:
// 1. The plugin's `open` has succeeded once; its `close` is called once, by `close` or when the object goes.
// 2. The shards are ended before that: a plugin never sees a call for a shard, or a backend, that is gone.
// 3. `statistics`, which comes at any time from any thread, runs under the lock of `open`: `close` waits for it.
internal import Base
internal import CBackend
internal import Storage
internal import Synchronization

/// The control plane of a plugin.
final class ForeignBackend: Backend, @unchecked Sendable {
    private let plugin: Plugin
    private let border: Border
    private let handle: UnsafeMutableRawPointer
    private let open = Mutex<[ForeignShard]?>([])

    init(
        _ plugin: Plugin, _ name: String, _ capabilities: Capabilities, _ limits: BackendLimits, _ request: OpenRequest
    ) throws(StorageError) {
        self.plugin = plugin
        border = Border(name, capabilities, limits, log: request.log)
        handle = try ForeignBackend.open(plugin, border, request)
    }

    deinit {
        guard let shards = open.withLock({ $0 }) else { return }
        do throws(StorageError) {
            try end(shards)
        } catch {
            border.log("plugin '\(border.name)': \(error.text)")
        }
    }

    private static func open(
        _ plugin: Plugin, _ border: Border, _ request: OpenRequest
    ) throws(StorageError) -> UnsafeMutableRawPointer {
        let texts = CTexts()
        let values = request.settings.values.map { apus_value(name: texts.add($0.name), value: texts.add($0.value)) }
        var handle: UnsafeMutableRawPointer?
        var failure = apus_error()
        let status = withExtendedLifetime(texts) {
            values.withUnsafeBufferPointer { values in
                var question = apus_open_request()
                question.namespace_name = texts.add(request.namespace)
                question.directory = texts.add(request.directory)
                question.settings = values.baseAddress
                question.setting_count = UInt32(values.count)
                question.format = UInt32(clamping: request.agreement.format)
                question.capabilities = request.agreement.capabilities.rawValue
                question.stored_format = UInt32(clamping: request.storedFormat)
                question.log = { context, line in
                    guard let context, let line else { return }
                    Unmanaged<Border>.fromOpaque(context).takeUnretainedValue().log(String(cString: line))
                }
                question.log_context = Unmanaged.passUnretained(border).toOpaque()
                return plugin.table.pointee.open(&question, &handle, &failure)
            }
        }
        guard status == APUS_DONE else { throw border.error(status, failure, "open") }
        guard let handle else { throw border.breach("open gave no handle") }
        return handle
    }

    // ---- Contract ----

    func makeShard(_ request: ShardRequest) throws(StorageError) -> any BackendShard {
        try checkOpen()
        let box = WakeBox(request.wake)
        var question = apus_shard_request()
        question.index = UInt32(request.index)
        question.count = UInt32(request.count)
        question.wake = { context in
            guard let context else { return }
            Unmanaged<WakeBox>.fromOpaque(context).takeUnretainedValue().wake()
        }
        question.wake_context = Unmanaged.passUnretained(box).toOpaque()
        var made: UnsafeMutableRawPointer?
        try call("make_shard") { plugin.table.pointee.make_shard(handle, &question, &made, $0) }
        guard let made else { throw border.breach("make_shard gave no handle") }
        let shard = ForeignShard(plugin, border, made, box)
        open.withLock { $0?.append(shard) }
        return shard
    }

    func scan(segment: Int, of count: Int, _ visit: (ScannedImage) -> ScanDecision) throws(StorageError) {
        try checkOpen()
        precondition(segment >= 0 && segment < count, "a segment is one of those there are")
        var failure = apus_error()
        let (status, damaged) = withoutActuallyEscaping(visit) { visit in
            var scan = Scan(visit: visit, border: border)
            let status = withUnsafeMutablePointer(to: &scan) { scan in
                plugin.table.pointee.scan(handle, UInt32(segment), UInt32(count), Scan.visitImage, scan, &failure)
            }
            return (status, scan.damaged)
        }
        if damaged > 0 { border.log("plugin '\(border.name)': a scan skipped \(damaged) damaged images") }
        guard status == APUS_DONE else { throw border.error(status, failure, "scan") }
    }

    func loadNamespaceBlob() throws(StorageError) -> [UInt8] {
        try load("load_blob", partsMax: 1, sizeMax: Int(APUS_BLOB_SIZE_MAX)) { sink, context, failure in
            plugin.table.pointee.load_blob(handle, sink, context, failure)
        }.first ?? []
    }

    func storeNamespaceBlob(_ bytes: [UInt8]) throws(StorageError) {
        try checkOpen()
        guard bytes.count <= APUS_BLOB_SIZE_MAX else { throw .tooLarge(limitBytes: Int(APUS_BLOB_SIZE_MAX)) }
        try call("store_blob") { failure in
            bytes.withUnsafeBytes { plugin.table.pointee.store_blob(handle, $0.baseAddress, UInt64($0.count), failure) }
        }
    }

    func loadPartitionMetadata() throws(StorageError) -> [[UInt8]] {
        try load("load_metadata", partsMax: Int(APUS_PARTITIONS), sizeMax: Int(APUS_METADATA_SIZE_MAX)) {
            sink, context, failure in
            plugin.table.pointee.load_metadata(handle, sink, context, failure)
        }
    }

    func storePartitionMetadata(_ metadata: [[UInt8]]) throws(StorageError) {
        try checkOpen()
        guard metadata.count <= APUS_PARTITIONS else { throw .tooLarge(limitBytes: Int(APUS_PARTITIONS)) }
        guard metadata.allSatisfy({ $0.count <= APUS_METADATA_SIZE_MAX }) else {
            throw .tooLarge(limitBytes: Int(APUS_METADATA_SIZE_MAX))
        }
        let all = metadata.flatMap { $0 }
        try call("store_metadata") { failure in
            all.withUnsafeBytes { all in
                var start = 0
                let parts = metadata.map { part in
                    defer { start += part.count }
                    return apus_bytes(bytes: all.baseAddress.map { $0 + start }, size: UInt64(part.count))
                }
                return parts.withUnsafeBufferPointer {
                    plugin.table.pointee.store_metadata(handle, $0.baseAddress, UInt32($0.count), failure)
                }
            }
        }
    }

    var statistics: BackendStatistics {
        let figures: apus_statistics? = open.withLock { shards in
            guard shards != nil else { return nil }
            var figures = apus_statistics()
            plugin.table.pointee.statistics(handle, &figures)
            return figures
        }
        return figures.map { border.statistics($0) } ?? BackendStatistics()
    }

    func close() throws(StorageError) {
        let shards = open.withLock { open in
            defer { open = nil }
            return open
        }
        guard let shards else { throw .closed }
        try end(shards)
    }

    // ---- Calls ----

    private func end(_ shards: [ForeignShard]) throws(StorageError) {
        for shard in shards { shard.end() }
        try call("close") { plugin.table.pointee.close(handle, $0) }
    }

    private func checkOpen() throws(StorageError) {
        guard open.withLock({ $0 != nil }) else { throw .closed }
    }

    /// Calls a slot that is done when it returns.
    private func call(
        _ slot: String, _ body: (UnsafeMutablePointer<apus_error>) -> Int32
    ) throws(StorageError) {
        var failure = apus_error()
        let status = body(&failure)
        guard status == APUS_DONE else { throw border.error(status, failure, slot) }
    }

    /// Calls a slot that hands over byte strings.
    private func load(
        _ slot: String, partsMax: Int, sizeMax: Int,
        _ body: (apus_sink, UnsafeMutableRawPointer, UnsafeMutablePointer<apus_error>) -> Int32
    ) throws(StorageError) -> [[UInt8]] {
        try checkOpen()
        var sink = Sink(partsMax: partsMax, sizeMax: sizeMax)
        try call(slot) { failure in
            withUnsafeMutablePointer(to: &sink) { body(Sink.take, $0, failure) }
        }
        guard sink.isWithinLimits else { throw border.breach("\(slot) gave more than was ever stored") }
        return sink.parts
    }
}
