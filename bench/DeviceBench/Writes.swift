// Appends as fast as one thread can, in a ring: the oldest images are released as the log fills up, block after block, so
// that nothing has to be moved.
import Base
import Glibc
import Storage

/// A log that is overwritten again and again.
final class Writes {
    private let backend: any Backend
    private let reactor: Reactor
    private let underWay = UnderWay()
    private var maker = ImageMaker(byteCount: writeImageSize)
    private var images: ContiguousArray<(digest: Digest, location: Location)?>
    private var appended = 0
    private let isSyncDisabled: Bool

    init(_ path: String, byteCount: Int, isSyncDisabled: Bool) throws {
        self.isSyncDisabled = isSyncDisabled
        backend = try open(path, byteCount: byteCount, isSyncDisabled: isSyncDisabled, opener: CountingDevices(underWay))
        reactor = try Reactor(backend)
        // Half of the log is alive.
        images = ContiguousArray(repeating: nil, count: byteCount / 2 / writeImageSize)
    }

    /// Measures as standard input says.
    func obey() throws {
        _ = maker.next()
        try append(byteCount: images.count * writeImageSize)
        say("ready")
        while let line = nextCommand() {
            guard let seconds = Double(line) else { throw StorageError.settings("'\(line)' is not 'SECONDS'") }
            try measure(seconds: seconds)
        }
        try backend.close()
    }

    private func measure(seconds: Double) throws {
        // The beginning of a burst fills the write cache at the speed of memory: that is not measured.
        try append(byteCount: 512 << 20)
        let first = appended
        underWay.begin()
        let begun = Moment()
        var now = begun
        while now.seconds(since: begun) < seconds {
            try append(byteCount: 16 << 20)
            now = Moment()
        }
        let bytes = Double((appended - first) * writeImageSize)
        say(
            "{\"mb_per_s\": \(hundredths(bytes / now.seconds(since: begun) / 1e6)),"
                + " \"device_mb_per_s\": \(hundredths(Double(underWay.writtenBytes) / now.seconds(since: begun) / 1e6)),"
                + " \"cpu_us_per_mb\": \(hundredths(now.cpu(since: begun) * 1e6 / bytes)),"
                + " \"depth_mean\": \(hundredths(underWay.mean)), \"depth_most\": \(underWay.most),"
                + " \"write_kb\": \(underWay.writtenBytes / max(underWay.writes, 1) / 1024)}")
    }

    private func append(byteCount: Int) throws {
        let until = appended + byteCount / writeImageSize
        while appended < until {
            if try appendOne() {
                if appended % 64 == 0 { reactor.turn(sleeping: false) { _ in } }
            } else {
                reactor.turn(sleeping: true) { _ in }
            }
        }
    }

    /// False: the log is full of what is being written.
    private func appendOne() throws -> Bool {
        let digest = maker.digest()
        do throws(StorageError) {
            let answer = try reactor.shard.append(
                digest, UnsafeRawBufferPointer(maker.bytes), stream: .fresh, tag: Tag(rawValue: 0))
            guard case .placed(let location) = answer else { fatalError("a device log places at once") }
            let place = appended % images.count
            if let old = images[place] { reactor.shard.release(old.digest, at: old.location, byteCount: writeImageSize) }
            images[place] = (digest, location)
            appended += 1
            return true
        } catch {
            guard error == .overloaded else { throw error }
            return false
        }
    }
}
