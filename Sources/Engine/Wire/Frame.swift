internal import Base

/// Type byte of a frame.
package struct FrameType: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    package let rawValue: UInt8
    @inlinable package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Text commands.
    @inlinable package static var info: FrameType { FrameType(rawValue: 1) }
    /// Log-in and user administration.
    @inlinable package static var security: FrameType { FrameType(rawValue: 2) }
    /// A data message.
    @inlinable package static var message: FrameType { FrameType(rawValue: 3) }
    /// A zlib stream of a whole frame.
    @inlinable package static var compressed: FrameType { FrameType(rawValue: 4) }
}

/// Why a connection is not served.
package enum FrameRefusal: Sendable, BitwiseCopyable {
    case version(UInt8)
    case type(UInt8)
    case tooLarge(UInt64)
    case tls

    /// What the client sent, for the log.
    package var sentence: String {
        switch self {
        case .version(let version): "a frame of protocol version \(version), expected is 2"
        case .type(let type): "a frame of unknown type \(type)"
        case .tooLarge(let size): "a frame of \(size) bytes, the most is \(Limits.frameBodySizeMax)"
        case .tls: "a TLS greeting on a port without TLS"
        }
    }
}

/// The eight bytes in front of everything: version 2, type, 48 bits of body size.
package struct FrameHeader: BitwiseCopyable {
    /// Size of the header itself in bytes.
    @inlinable package static var byteCount: Int { 8 }
    /// A `FrameType`: 1 to 4.
    package let type: UInt8
    /// Bytes behind the header, at most `Limits.frameBodySizeMax`.
    package let bodySize: Int

    /// Result of looking at the start of a buffer.
    package enum Parse: BitwiseCopyable {
        /// Fewer than eight bytes.
        case incomplete
        /// A header; its body may still be missing.
        case frame(FrameHeader)
        /// Not this protocol: close the connection.
        case refused(FrameRefusal)
    }

    /// Reads the header at the start of `bytes`.
    @inlinable
    package static func parse(_ bytes: UnsafeRawBufferPointer) -> Parse {
        guard bytes.count >= byteCount, let base = bytes.baseAddress else { return .incomplete }
        let word = UInt64(bigEndian: base.loadUnaligned(as: UInt64.self))
        let version = UInt8(truncatingIfNeeded: word >> 56)
        let type = UInt8(truncatingIfNeeded: word >> 48)
        let size = word & 0xFFFF_FFFF_FFFF
        // Old tools send security frames as version 0.
        guard version == 2 || version == 0 && type == 2 else {
            let looksLikeTLS = version == 22 && type == 3 && bytes[5] == 1
            return .refused(looksLikeTLS ? .tls : .version(version))
        }
        guard type >= 1, type <= 4 else { return .refused(.type(type)) }
        guard size <= 134_217_728 else { return .refused(.tooLarge(size)) }
        return .frame(FrameHeader(type: type, bodySize: Int(size)))
    }

    @usableFromInline
    init(type: UInt8, bodySize: Int) {
        self.type = type
        self.bodySize = bodySize
    }

    /// Writes a header to eight bytes at `target`.
    package static func write(type: FrameType, bodySize: Int, to target: UnsafeMutableRawPointer) {
        precondition(bodySize >= 0 && bodySize <= Limits.frameBodySizeMax)
        target.storeBigEndian(UInt64(2) << 56 | UInt64(type.rawValue) << 48 | UInt64(bodySize))
    }
}

/// The 22 bytes at the start of a data message.
package struct MessageHeader: BitwiseCopyable, Sendable {
    /// Size in bytes, also sent as the first byte.
    @inlinable package static var byteCount: Int { 22 }
    package var info1: Info1 = []
    package var info2: Info2 = []
    package var info3: Info3 = []
    package var info4: UInt8 = 0
    package var resultCode: UInt8 = 0
    package var generation: UInt32 = 0
    /// Request: seconds to live or read-touch percent. Answer: void-time in seconds since 2010.
    package var timeToLive: UInt32 = 0
    /// Request: milliseconds, 0 for the server's default.
    package var transactionTimeout: UInt32 = 0
    package var fieldCount: UInt16 = 0
    package var operationCount: UInt16 = 0

    package init() {}

    /// Reads 22 bytes at `base`.
    package init(_ base: UnsafeRawPointer) {
        info1 = Info1(rawValue: base.load(fromByteOffset: 1, as: UInt8.self))
        info2 = Info2(rawValue: base.load(fromByteOffset: 2, as: UInt8.self))
        info3 = Info3(rawValue: base.load(fromByteOffset: 3, as: UInt8.self))
        info4 = base.load(fromByteOffset: 4, as: UInt8.self)
        resultCode = base.load(fromByteOffset: 5, as: UInt8.self)
        generation = base.bigEndian(UInt32.self, at: 6)
        timeToLive = base.bigEndian(UInt32.self, at: 10)
        transactionTimeout = base.bigEndian(UInt32.self, at: 14)
        fieldCount = base.bigEndian(UInt16.self, at: 18)
        operationCount = base.bigEndian(UInt16.self, at: 20)
    }

    /// Writes 22 bytes to `target`.
    package func write(to target: UnsafeMutableRawPointer) {
        let flags = UInt64(22) << 56 | UInt64(info1.rawValue) << 48 | UInt64(info2.rawValue) << 40
            | UInt64(info3.rawValue) << 32 | UInt64(info4) << 24 | UInt64(resultCode) << 16
        target.storeBigEndian(flags)
        target.storeBigEndian(generation, at: 6)
        target.storeBigEndian(timeToLive, at: 10)
        target.storeBigEndian(transactionTimeout, at: 14)
        target.storeBigEndian(fieldCount, at: 18)
        target.storeBigEndian(operationCount, at: 20)
    }
}
