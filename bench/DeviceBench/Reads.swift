// Random reads of images that lie on the device only.
import Base
import Glibc
import Storage
import SystemDevice

/// A log that is full of images, and where they are.
final class Reads {
    private let backend: any Backend
    private let reactor: Reactor
    private var maker = ImageMaker(byteCount: readImageSize)
    private var images: ContiguousArray<(digest: Digest, location: Location)> = []
    /// The last blocks may still be in memory.
    private var coldCount = 0
    private var readCount = 0
    private var endedCount = 0

    init(_ path: String, byteCount: Int) throws {
        backend = try open(path, byteCount: byteCount, isSyncDisabled: false, opener: SystemDevices())
        reactor = try Reactor(backend)
        try fill()
    }

    /// Appends until the log has no room; what was written last is not read.
    private func fill() throws {
        images.reserveCapacity(1 << 20)
        var isFull = false
        while !isFull {
            let digest = maker.next()
            var isPlaced = false
            while !isPlaced, !isFull {
                do throws(StorageError) {
                    let answer = try reactor.shard.append(
                        digest, UnsafeRawBufferPointer(maker.bytes), stream: .fresh, tag: Tag(rawValue: 0))
                    guard case .placed(let location) = answer else { fatalError("a device log places at once") }
                    images.append((digest, location))
                    isPlaced = true
                } catch {
                    guard error == .overloaded || error == .outOfSpace else { throw error }
                    isFull = error == .outOfSpace
                    reactor.turn(sleeping: true) { _ in }
                }
            }
            if images.count % 256 == 0 { reactor.turn(sleeping: false) { _ in } }
        }
        // Everything is written once the commit has ended.
        var isCommitted = try reactor.shard.commit(images[0].digest, tag: Tag(rawValue: 0)) == .done
        while !isCommitted { reactor.turn(sleeping: true) { _ in isCommitted = true } }
        coldCount = images.count - (32 << 20) / readImageSize
        guard coldCount > 0 else { throw StorageError.settings("the file is too small") }
    }

    /// Measures as standard input says.
    func obey() throws {
        say("ready")
        while let line = nextCommand() {
            let words = line.split(separator: " ")
            guard words.count == 2, let depth = Int(words[0]), let seconds = Double(words[1]), depth > 0 else {
                throw StorageError.settings("'\(line)' is not 'DEPTH SECONDS'")
            }
            try measure(depth: depth, seconds: seconds)
        }
        try backend.close()
    }

    /// Starts a read; counts it as ended if it came from memory after all.
    private func start() throws {
        let place = maker.chance(below: coldCount)
        let (digest, location) = images[place]
        readCount += 1
        let answer = try reactor.shard.read(
            digest, at: location, byteCount: readImageSize, tag: Tag(rawValue: UInt64(place)))
        guard case .pending = answer else { fatalError("image \(place) is in memory") }
    }

    private func receive(_ completion: borrowing Completion) {
        guard case .read(let image) = completion.result else { fatalError("a read has failed") }
        let digest = images[Int(completion.tag.rawValue)].digest
        guard Envelope.digest(at: image.baseAddress!) == digest else { fatalError("another image was read") }
        endedCount += 1
    }

    private func measure(depth: Int, seconds: Double) throws {
        readCount = 0
        endedCount = 0
        for _ in 0..<depth { try start() }
        let begun = Moment()
        let turnsBefore = reactor.turns
        var now = begun
        while now.seconds(since: begun) < seconds {
            // A moment costs two system calls: not in each turn.
            for _ in 0..<64 {
                reactor.turn(sleeping: true, receive)
                while readCount - endedCount < depth { try start() }
            }
            now = Moment()
        }
        let operations = Double(max(endedCount, 1))
        say(
            "{\"depth\": \(depth), \"iops\": \(hundredths(operations / now.seconds(since: begun))),"
                + " \"cpu_us\": \(hundredths(now.cpu(since: begun) / operations)),"
                + " \"user_us\": \(hundredths((now.userMicroseconds - begun.userMicroseconds) / operations)),"
                + " \"turns\": \(hundredths(Double(reactor.turns - turnsBefore) / operations))}")
        while endedCount < readCount { reactor.turn(sleeping: true, receive) }
    }
}
