// The device log alone, on a file: no engine, no network. One JSON line for each measurement.
// Usage: DeviceBench FILE BYTES reads          commands on standard input: `DEPTH SECONDS`
//        DeviceBench FILE BYTES writes|flushes commands on standard input: `SECONDS`; `flushes` runs with disable-odsync
// It says `ready` when it can be commanded, and ends with standard input. FILE is overwritten.
import Base
import CReactor
import Device
import DeviceLog
import Glibc
import Storage
import SystemDevice

/// Envelope and payload: with what is in front of it in its sector, at most 4 KiB are read.
let readImageSize = 3584
/// What is appended flat out.
let writeImageSize = 16 << 10

/// An opened log, after its cold start.
func open(_ path: String, byteCount: Int, isSyncDisabled: Bool, opener: any DeviceOpener) throws -> any Backend {
    let descriptor = DeviceLog.descriptor(
        opener: opener,
        entropy: {
            var system = SystemRandomNumberGenerator()
            return system.next()
        })
    let own = [
        ("file", path), ("filesize", "\(byteCount)"), ("post-write-cache", "0"), ("cold-start-empty", "true"),
        ("disable-odsync", "\(isSyncDisabled)"),
    ]
    // In plain form, as the node hands them over.
    let plain = ["1M": "\(1 << 20)", "64M": "\(64 << 20)", "256M": "\(256 << 20)"]
    let standard = descriptor.allSettings.filter { schema in !own.contains { $0.0 == schema.name } && schema.kind != .list }
        .map { ($0.name, plain[$0.defaultText] ?? $0.defaultText) }
    let backend = try descriptor.open(
        OpenRequest(
            namespace: "bench", settings: BackendSettings((own + standard).map { (name: $0.0, value: $0.1) }),
            agreement: Agreement(
                backend: descriptor.name, format: descriptor.formats.upperBound, capabilities: descriptor.capabilities),
            log: { say("# \($0)", to: STDERR_FILENO) }))
    try backend.scan(segment: 0, of: 1) { _ in .stale }
    return backend
}

/// Images of chance, one after the other.
struct ImageMaker {
    private var random = SeededRandom(seed: 1)
    let bytes: UnsafeMutableRawBufferPointer

    init(byteCount: Int) {
        bytes = .allocate(byteCount: byteCount, alignment: 64)
        for place in stride(from: 0, to: byteCount, by: 8) {
            bytes.storeBytes(of: random.next(), toByteOffset: place, as: UInt64.self)
        }
    }

    /// Another digest, other bytes here and there, sealed.
    mutating func next() -> Digest {
        let digest = Digest(
            low: random.next(), middle: random.next(), high: UInt32(truncatingIfNeeded: random.next()))
        for place in stride(from: 32, to: bytes.count - 8, by: 256) {
            bytes.storeBytes(of: random.next(), toByteOffset: place, as: UInt64.self)
        }
        Envelope.seal(bytes, digest: digest)
        return digest
    }

    /// A digest alone.
    mutating func digest() -> Digest { Digest(low: random.next(), middle: random.next(), high: 0) }
    mutating func chance(below count: Int) -> Int { Int(random.next().multipliedFullWidth(by: UInt64(count)).high) }
}

/// A line at once: who commands this waits for it.
func say(_ line: String, to descriptor: Int32 = STDOUT_FILENO) {
    let text = line + "\n"
    _ = write(descriptor, text, text.utf8.count)
}

/// The next command; nil at the end of standard input.
func nextCommand() -> String? {
    // Where this is EINTR of an earlier call, readLine would take the end for an interruption, for ever.
    errno = 0
    return readLine()
}

func hundredths(_ value: Double) -> String { "\((value * 100).rounded() / 100)" }

do {
    guard CommandLine.arguments.count == 4, let byteCount = Int(CommandLine.arguments[2]) else {
        throw StorageError.settings("usage: DeviceBench FILE BYTES reads|writes|flushes")
    }
    let path = CommandLine.arguments[1]
    let what = CommandLine.arguments[3]
    switch what {
    case "reads": try Reads(path, byteCount: byteCount).obey()
    case "writes", "flushes": try Writes(path, byteCount: byteCount, isSyncDisabled: what == "flushes").obey()
    default: throw StorageError.settings("'\(what)' is not reads, writes or flushes")
    }
} catch let error as StorageError {
    say("DeviceBench: \(error.text)", to: STDERR_FILENO)
    exit(1)
}
