import Base
import Device
import DeviceLog
import Storage
import Synchronization

/// Numbered images: the bytes follow from the number and the version.
enum NumberedImage {
    static func digest(_ number: Int) -> Digest {
        Digest(low: UInt64(number), middle: UInt64(number) &* 0x9E37_79B9_7F4A_7C15, high: 7)
    }

    static func bytes(_ number: Int, version: Int = 0) -> [UInt8] {
        var random = SeededRandom(seed: UInt64(number * 1000 + version))
        var bytes = [UInt8](repeating: 0, count: Envelope.byteCount + 40 + number * 37 % 300)
        for place in Envelope.byteCount..<bytes.count { bytes[place] = UInt8(truncatingIfNeeded: random.next()) }
        bytes[Envelope.byteCount] = UInt8(version)
        bytes.withUnsafeMutableBytes { Envelope.seal($0, digest: digest(number)) }
        return bytes
    }
}

/// What a scan has shown.
struct Shown {
    let number: Int
    let version: Int
    let location: Location
    let order: UInt64
    /// Whether it is, byte for byte, what was appended.
    let isRight: Bool
}

extension [Shown] {
    var areRight: Bool { allSatisfy { $0.isRight } }
}

/// A log on small simulated devices.
struct TestLog {
    let opener: SimulatedOpener
    var shape = TestLog.smallShape
    var seed: UInt64 = 1
    let lines = LogLines()

    static var smallShape: LogShape {
        var shape = LogShape()
        shape.blockSize = 4 << 10
        shape.headSize = 8 << 10
        shape.flushUnit = 512
        return shape
    }
    static let byteCount = (8 << 10) + 16 * (4 << 10)

    init(_ opener: SimulatedOpener) { self.opener = opener }
    init(count: Int, byteCount: Int = TestLog.byteCount, seed: UInt64) {
        self.init(SimulatedOpener(count: count, byteCount: byteCount, seed: seed))
        self.seed = seed
    }

    static func names(_ count: Int) -> [String] { (0..<count).map { "d\($0)" } }

    func open(
        _ paths: [String], _ settings: [(name: String, value: String)] = [], as kind: String = "device",
        namespace: String = DeviceLogOpening.namespace
    ) throws(StorageError) -> any Backend {
        let small = [("flush-size", "1024"), ("max-write-cache", "65536"), ("post-write-cache", "8192")]
            .map { (name: $0.0, value: $0.1) }
        let seed = seed
        let descriptor = DeviceLog.descriptor(opener: opener, entropy: { seed }, shape: shape)
        return try DeviceLogOpening.open(
            descriptor, small + settings + paths.map { (name: kind, value: $0) }, lines, namespace: namespace)
    }

    /// Why it does not open; empty if it does.
    func refusal(
        _ paths: [String], _ settings: [(name: String, value: String)] = [], as kind: String = "device",
        namespace: String = DeviceLogOpening.namespace
    ) -> String {
        do throws(StorageError) {
            _ = try open(paths, settings, as: kind, namespace: namespace)
            return ""
        } catch {
            return error.text
        }
    }
}

extension Backend {
    func makeTestShard() throws(StorageError) -> any BackendShard {
        try makeShard(ShardRequest(index: 0, count: 1) {})
    }

    /// Appends images of these numbers and has them last; where they are.
    func append(_ numbers: some Sequence<Int>, version: Int = 0) throws(StorageError) -> [Location] {
        let shard = try makeTestShard()
        var locations: [Location] = []
        for number in numbers {
            let image = NumberedImage.bytes(number, version: version)
            var answer = AppendAnswer.pending
            var failure: StorageError?
            for _ in 0..<1000 {
                failure = nil
                image.withUnsafeBytes { bytes in
                    do throws(StorageError) {
                        answer = try shard.append(NumberedImage.digest(number), bytes, stream: .fresh, tag: Tag(rawValue: 0))
                    } catch {
                        failure = error
                    }
                }
                guard failure == .overloaded else { break }
                shard.turn()
            }
            if let failure { throw failure }
            if case .placed(let location) = answer { locations.append(location) }
            try shard.commitAndWait(number)
        }
        return locations
    }

    /// A cold start, or a later scan, that lets the image with the highest order live.
    func coldStart(segments: Int = 1) throws(StorageError) -> [Shown] {
        var shown: [Shown] = []
        for segment in 0..<segments {
            try scan(segment: segment, of: segments) { image in
                let number = Int(image.digest.low)
                let version = Int(image.image[Envelope.byteCount])
                let isRight = image.image.elementsEqual(NumberedImage.bytes(number, version: version))
                let older = shown.filter { $0.number == number }.max { $0.order < $1.order }
                shown.append(
                    Shown(
                        number: number, version: version, location: image.location, order: image.sequence,
                        isRight: isRight))
                guard let older else { return .live }
                guard image.sequence > older.order else { return .stale }
                return .replaces(older.location, byteCount: NumberedImage.bytes(number, version: older.version).count)
            }
        }
        return shown
    }

    /// Whether the image can be read at its location.
    func holds(_ number: Int, version: Int = 0, at location: Location) throws(StorageError) -> Bool {
        let shard = try makeTestShard()
        let right = NumberedImage.bytes(number, version: version)
        var isRight: Bool?
        let answer = try shard.read(
            NumberedImage.digest(number), at: location, byteCount: right.count, tag: Tag(rawValue: 1))
        if case .here(let bytes) = answer { isRight = bytes.elementsEqual(right) }
        for _ in 0..<1000 where isRight == nil {
            shard.poll { completion in
                guard case .read(let bytes) = completion.result else { return isRight = false }
                isRight = bytes.elementsEqual(right)
            }
            shard.turnEnded(sleeping: false)
        }
        return isRight ?? false
    }
}

extension BackendShard {
    func turn() {
        poll { _ in }
        turnEnded(sleeping: false)
    }

    func commitAndWait(_ number: Int) throws(StorageError) {
        guard case .pending = try commit(NumberedImage.digest(number), tag: Tag(rawValue: 2)) else { return }
        for _ in 0..<10_000 {
            var end: StorageError??
            poll { completion in
                switch completion.result {
                case .done: end = .some(nil)
                case .failed(let error): end = error
                default: break
                }
            }
            turnEnded(sleeping: false)
            if let end {
                if let end { throw end }
                return
            }
        }
        throw .overloaded
    }
}
