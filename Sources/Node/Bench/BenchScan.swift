// Scans as a benchmark: each connection asks for everything and counts the records that come.
package import Client
internal import Base
internal import CBase
internal import CReactor
internal import Glibc
internal import Wire

/// What a benchmark of scans does.
package struct ScanSettings: Sendable {
    package var address: NodeAddress
    package var namespace = "test"
    /// Empty for all.
    package var set = ""
    /// Bins to select; none for all.
    package var bins: [String] = []
    package var isMetadataOnly = false
    /// Scans at a time.
    package var scans = 1
    /// Each connection scans so often.
    package var rounds = 1
    /// Records per second of each scan, 0 for no limit.
    package var recordsPerSecond: UInt32 = 0
    /// An expression as msgpack; empty for none.
    package var filter: [UInt8] = []
    package var serverProcess: Int32?
    package var isQuiet = false

    package init(address: NodeAddress) { self.address = address }
}

extension Bench {
    /// Runs scans of all partitions until each has ended; operations are records, latencies those of whole scans.
    package static func scan(_ settings: ScanSettings) throws(BenchError) -> BenchResult {
        var workers: [ScanWorker] = []
        for number in 0..<settings.scans { workers.append(try ScanWorker(settings, number: number)) }
        let begun = apus_monotonic_nanoseconds()
        let own = apus_process_nanoseconds(getpid())
        let server = settings.serverProcess.map { apus_process_nanoseconds($0) }
        for worker in workers { worker.start() }
        for worker in workers { worker.join() }
        var result = BenchResult()
        result.seconds = Double(apus_monotonic_nanoseconds() - begun) / 1e9
        result.operations = workers.reduce(0) { $0 + $1.records }
        let operations = Double(max(result.operations, 1))
        result.ownNanosecondsPerOperation = Double(apus_process_nanoseconds(getpid()) - own) / operations
        if let server, let process = settings.serverProcess {
            result.serverNanosecondsPerOperation = Double(apus_process_nanoseconds(process) - server) / operations
        }
        var histogram = LatencyHistogram()
        for worker in workers {
            if let failure = worker.failure { throw BenchError(message: failure) }
            for nanoseconds in worker.durations { histogram.record(nanoseconds) }
            if worker.result != 0 { result.errors[worker.result, default: 0] += 1 }
        }
        result.percentiles = [("p50", Double(histogram.percentile(50)) / 1000), ("max", Double(histogram.maximum) / 1000)]
        return result
    }
}

/// One connection that scans. Made and asked on the caller's thread, runs on its own.
private final class ScanWorker: @unchecked Sendable {
    private let settings: ScanSettings
    private let number: Int
    private let descriptor: Int32
    private var thread = pthread_t()
    private(set) var records: UInt64 = 0
    private(set) var durations: [UInt64] = []
    private(set) var result: UInt8 = 0
    private(set) var failure: String?
    private static let patienceMilliseconds: Int32 = 60_000

    init(_ settings: ScanSettings, number: Int) throws(BenchError) {
        self.settings = settings
        self.number = number
        descriptor = try ClientSocket.connect(settings.address)
    }

    deinit { close(descriptor) }

    func start() {
        pthread_create(
            &thread, nil,
            { pointer in
                let worker = Unmanaged<ScanWorker>.fromOpaque(pointer!).takeRetainedValue()
                for round in 0..<worker.settings.rounds where worker.failure == nil { worker.run(round) }
                return nil
            }, Unmanaged.passRetained(self).toOpaque())
    }

    func join() { pthread_join(thread, nil) }

    private func request(_ round: Int) -> [UInt8] {
        var header = MessageHeader()
        header.info1 = settings.isMetadataOnly ? [.read, .noBins] : settings.bins.isEmpty ? [.read, .getAllBins] : .read
        header.info3 = .partitionDone
        let output = OutputBuffer()
        var encoder = RequestEncoder(output)
        encoder.begin(header)
        encoder.field(.namespace, settings.namespace)
        if !settings.set.isEmpty { encoder.field(.set, settings.set) }
        func field(_ number: FieldNumber, _ bytes: [UInt8]) { bytes.withUnsafeBytes { encoder.field(number, $0) } }
        if settings.recordsPerSecond > 0 {
            field(.recordsPerSecond, withUnsafeBytes(of: settings.recordsPerSecond.bigEndian) { Array($0) })
        }
        let task = UInt64(getpid()) << 32 | UInt64(number) << 16 | UInt64(round + 1)
        field(.taskID, withUnsafeBytes(of: task.bigEndian) { Array($0) })
        field(.partitionIDs, (0..<PartitionID.count).flatMap { [UInt8($0 & 0xFF), UInt8($0 >> 8)] })
        if !settings.filter.isEmpty { field(.filter, settings.filter) }
        for bin in settings.bins {
            encoder.operation(OperationCode.read, ParticleType.null, bin, UnsafeRawBufferPointer(start: nil, count: 0))
        }
        encoder.end()
        return Array(output.bytes)
    }

    private func run(_ round: Int) {
        let begun = apus_monotonic_nanoseconds()
        let request = request(round)
        let sent = request.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress!, $0.count, Int32(MSG_NOSIGNAL)) }
        guard sent == request.count else { return failure = "the server did not take the request" }
        let input = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
        defer { input.deallocate() }
        var filled = 0
        while true {
            guard apus_wait_readable(descriptor, ScanWorker.patienceMilliseconds) == 1 else {
                return failure = "the server sent nothing for \(ScanWorker.patienceMilliseconds / 1000) s"
            }
            let got = recv(descriptor, input.baseAddress! + filled, input.count - filled, 0)
            guard got > 0 else { return failure = "the server closed the connection" }
            filled += got
            var offset = 0
            while case .frame(let header) = FrameHeader.parse(UnsafeRawBufferPointer(rebasing: input[offset..<filled])),
                filled - offset >= FrameHeader.byteCount + header.bodySize {
                let end = offset + FrameHeader.byteCount + header.bodySize
                if take(UnsafeRawBufferPointer(rebasing: input[(offset + FrameHeader.byteCount)..<end])) {
                    durations.append(apus_monotonic_nanoseconds() - begun)
                    return
                }
                offset = end
            }
            memmove(input.baseAddress!, input.baseAddress! + offset, filled - offset)
            filled -= offset
            guard filled < input.count else { return failure = "the server sent a frame above 1 MiB" }
        }
    }

    /// Counts the records of one frame; true at the end of the stream.
    private func take(_ body: UnsafeRawBufferPointer) -> Bool {
        var offset = 0
        while offset + MessageHeader.byteCount <= body.count, let base = body.baseAddress {
            let header = MessageHeader(base + offset)
            if header.info3.contains(.last) {
                result = header.resultCode
                return true
            }
            offset += MessageHeader.byteCount
            for _ in 0..<(Int(header.fieldCount) + Int(header.operationCount)) where offset + 4 <= body.count {
                offset += 4 + Int(base.bigEndian(UInt32.self, at: offset))
            }
            records += 1
        }
        return false
    }
}
