internal import Base
internal import Glibc
internal import Wire

/// Builds requests by copying a template and patching digest, sizes and value: the generator must cost less
/// than what it measures. One per thread.
struct RequestMaker {
    private let target: BenchSettings.Target
    private let digests: UnsafePointer<Digest>
    private let readTemplate: [UInt8]
    private let writeTemplate: [UInt8]
    private let digestOffset: Int
    private let batchTemplate: [UInt8]
    private let batchRows: Int
    private let noise: [UInt8]
    private let valueBytes: ClosedRange<Int>
    /// The most bytes of one request.
    let sizeMax: Int
    /// Bytes of the write's operation in front of the value, and how many of them its size counts.
    private let operationHeader: Int
    private let binOverhead: Int

    init(_ settings: BenchSettings, _ digests: UnsafePointer<Digest>, _ random: inout SeededRandom) {
        target = settings.target
        self.digests = digests
        valueBytes = settings.valueBytes
        noise = (0..<(settings.valueBytes.upperBound + 4096)).map { _ in UInt8.random(in: 0x61...0x7A, using: &random) }
        readTemplate = RequestMaker.template(settings, isWrite: false)
        writeTemplate = RequestMaker.template(settings, isWrite: true)
        operationHeader = 8 + settings.bin.utf8.count
        binOverhead = 4 + settings.bin.utf8.count
        digestOffset = readTemplate.count - Digest.byteCount
        batchRows = settings.batchRows
        batchTemplate = batchRows > 0 ? RequestMaker.batchTemplate(settings) : []
        sizeMax = max(writeTemplate.count + settings.valueBytes.upperBound + 128, batchTemplate.count)
    }

    /// A request whose last field is the digest; the write's operation follows it.
    private static func template(_ settings: BenchSettings, isWrite: Bool) -> [UInt8] {
        var header = MessageHeader()
        if isWrite { header.info2 = .write } else { header.info1 = [.read, .getAllBins] }
        header.transactionTimeout = 1000
        let output = OutputBuffer()
        var encoder = RequestEncoder(output)
        encoder.begin(header)
        encoder.field(.namespace, settings.namespace)
        if !settings.set.isEmpty { encoder.field(.set, settings.set) }
        encoder.field(Digest(low: 0, middle: 0, high: 0))
        if isWrite {
            encoder.operation(
                OperationCode.write, ParticleType.string, settings.bin, UnsafeRawBufferPointer(start: nil, count: 0))
        }
        encoder.end()
        return Array(output.bytes)
    }

    /// A batch as clients send it: the first row says everything, the others repeat it.
    private static func batchTemplate(_ settings: BenchSettings) -> [UInt8] {
        var header = MessageHeader()
        header.transactionTimeout = 1000
        let output = OutputBuffer()
        var encoder = BatchEncoder(output, header, flags: [.respondAllKeys, .errorRows])
        let none = Digest(low: 0, middle: 0, high: 0)
        for index in 0..<UInt32(settings.batchRows - 1) { encoder.repeatRow(index, none) }
        var row = MessageHeader()
        row.info1 = [.read, .getAllBins]
        encoder.row(UInt32(settings.batchRows - 1), none, row, namespace: settings.namespace, set: settings.set)
        encoder.end()
        // Rows have one size but for the first, which was written last.
        let rows = FrameHeader.byteCount + MessageHeader.byteCount + 10
        let firstRow = rows + (settings.batchRows - 1) * batchRowSize
        return Array(output.bytes[..<rows]) + Array(output.bytes[firstRow...]) + Array(output.bytes[rows..<firstRow])
    }

    /// Index, digest, flags.
    private static let batchRowSize = 5 + Digest.byteCount

    /// Writes a batch of the keys that `next` gives; returns its size.
    func writeBatch(to place: UnsafeMutableRawPointer, _ next: () -> Int) -> Int {
        batchTemplate.withUnsafeBytes { _ = memcpy(place, $0.baseAddress!, $0.count) }
        var row = place + FrameHeader.byteCount + MessageHeader.byteCount + 10
        let others = batchRows - 1
        let firstSize = batchTemplate.count - (row - place) - others * RequestMaker.batchRowSize
        digests[next()].store(to: row + 4)
        row += firstSize
        for _ in 0..<others {
            digests[next()].store(to: row + 4)
            row += RequestMaker.batchRowSize
        }
        return batchTemplate.count
    }

    /// Writes a request for `key` to `place`, which has room for `sizeMax` bytes; returns its size.
    func write(_ key: Int, isWrite: Bool, _ random: inout SeededRandom, to place: UnsafeMutableRawPointer) -> Int {
        if target == .redis { return writeRedis(key, isWrite: isWrite, &random, to: place) }
        let template = isWrite ? writeTemplate : readTemplate
        template.withUnsafeBytes { _ = memcpy(place, $0.baseAddress!, $0.count) }
        digests[key].store(to: place + digestOffset)
        guard isWrite else { return template.count }
        let size = valueSize(&random)
        copyNoise(size, &random, to: place + template.count)
        FrameHeader.write(type: .message, bodySize: template.count - FrameHeader.byteCount + size, to: place)
        (place + template.count - operationHeader).storeBigEndian(UInt32(binOverhead + size))
        return template.count + size
    }

    private func valueSize(_ random: inout SeededRandom) -> Int {
        guard valueBytes.count > 1 else { return valueBytes.lowerBound }
        return valueBytes.lowerBound + Int(random.next().multipliedFullWidth(by: UInt64(valueBytes.count)).high)
    }

    private func copyNoise(_ size: Int, _ random: inout SeededRandom, to place: UnsafeMutableRawPointer) {
        let start = Int(random.next() & 4095)
        noise.withUnsafeBytes { _ = memcpy(place, $0.baseAddress! + start, size) }
    }

    /// `GET k00000000` or `SET k00000000 value` as arrays of bulk strings.
    private func writeRedis(
        _ key: Int, isWrite: Bool, _ random: inout SeededRandom, to place: UnsafeMutableRawPointer
    ) -> Int {
        var cursor = place
        func put(_ text: StaticString) {
            memcpy(cursor, text.utf8Start, text.utf8CodeUnitCount)
            cursor += text.utf8CodeUnitCount
        }
        func put(number: Int, digits: Int) {
            var rest = number
            for place in stride(from: digits - 1, through: 0, by: -1) {
                cursor.storeBytes(of: UInt8(0x30 + rest % 10), toByteOffset: place, as: UInt8.self)
                rest /= 10
            }
            cursor += digits
        }
        put(isWrite ? "*3\r\n$3\r\nSET\r\n$9\r\nk" : "*2\r\n$3\r\nGET\r\n$9\r\nk")
        put(number: key, digits: 8)
        put("\r\n")
        guard isWrite else { return cursor - place }
        let size = valueSize(&random)
        put("$")
        put(number: size, digits: String(size).utf8.count)
        put("\r\n")
        copyNoise(size, &random, to: cursor)
        cursor += size
        put("\r\n")
        return cursor - place
    }
}
