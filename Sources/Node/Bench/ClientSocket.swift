package import Client
internal import Base
internal import CReactor
internal import Glibc
internal import Wire

/// Sockets of tools: connect with a deadline, ask and wait.
package enum ClientSocket {
    private static let timeoutMilliseconds: Int32 = 5000

    /// Connects; the socket is non-blocking without delay.
    static func connect(_ address: NodeAddress) throws(BenchError) -> Int32 {
        let descriptor = apus_connect(address.host, UInt16(address.port), timeoutMilliseconds)
        guard descriptor >= 0 else {
            let reason = errno == 0 ? "there is no address of that name" : String(cString: strerror(errno))
            throw BenchError(message: "cannot connect to \(address): \(reason)")
        }
        return descriptor
    }

    /// Asks info commands and waits for the answers.
    package static func info(
        _ address: NodeAddress, _ commands: [String]
    ) throws(BenchError) -> [(command: String, value: String)] {
        let descriptor = try connect(address)
        defer { close(descriptor) }
        let request = InfoExchange.request(commands)
        let sent = request.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress!, $0.count, Int32(MSG_NOSIGNAL)) }
        guard sent == request.count else { throw BenchError(message: "\(address) did not take the request") }
        var bytes: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            if bytes.count >= FrameHeader.byteCount {
                let (isInfo, size) = bytes.withUnsafeBytes { bytes -> (Bool, Int) in
                    guard case .frame(let header) = FrameHeader.parse(bytes) else { return (false, 0) }
                    return (header.type == FrameType.info.rawValue, FrameHeader.byteCount + header.bodySize)
                }
                guard isInfo else { throw BenchError(message: "\(address) does not speak the Aerospike protocol") }
                if bytes.count >= size {
                    return bytes[FrameHeader.byteCount..<size].withUnsafeBytes { InfoExchange.answers($0) }
                }
            }
            guard apus_wait_readable(descriptor, timeoutMilliseconds) == 1 else {
                throw BenchError(message: "\(address) did not answer within \(timeoutMilliseconds / 1000) s")
            }
            let got = block.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress!, $0.count, 0) }
            guard got > 0 else { throw BenchError(message: "\(address) closed the connection") }
            bytes += block[..<got]
        }
    }
}
