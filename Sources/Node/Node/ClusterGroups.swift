// The multicast groups that heartbeats use. One socket for each group, with the same port.
internal import CReactor
internal import Fabric
internal import Files
internal import Glibc

/// The groups a node has joined. The cluster's thread only.
final class ClusterGroups {
    private static let receivesPerTurn = 64
    private static let datagramSizeMax = 65_536
    private let groups: [(address: Address, descriptor: Int32)]
    private let tag: UInt64
    private let buffer = UnsafeMutableRawPointer.allocate(byteCount: ClusterGroups.datagramSizeMax, alignment: 64)
    private var lastReason: Int32 = 0
    private let warn: (String) -> Void

    /// Watches the sockets from now on; `tag` is shifted by 56 bits into the tokens.
    init(_ groups: [(address: Address, descriptor: Int32)], epoll: Int32, tag: UInt8, warn: @escaping (String) -> Void) {
        self.groups = groups
        self.tag = UInt64(tag) << 56
        self.warn = warn
        for (number, group) in groups.enumerated() {
            apus_epoll_add(epoll, group.descriptor, UInt32(APUS_READABLE), self.tag | UInt64(number))
        }
    }

    deinit {
        for group in groups { close(group.descriptor) }
        buffer.deallocate()
    }

    /// Joins the groups on the interface that has `interface`; `any` for the system's choice.
    static func join(
        _ names: [String], port: Int, interface: String, timeToLive: Int
    ) throws(StartError) -> [(address: Address, descriptor: Int32)] {
        var groups: [(address: Address, descriptor: Int32)] = []
        for name in names {
            let address = Address(host: name, port: UInt16(truncatingIfNeeded: port))
            let descriptor = apus_group_join(name, address.port, interface == "any" ? "" : interface, Int32(timeToLive))
            guard descriptor >= 0 else {
                let reason = errnoText()
                for group in groups { close(group.descriptor) }
                throw StartError("cannot join multicast group \(address): \(reason); check network.heartbeat.multicast-group"
                    + " and address")
            }
            groups.append((address, descriptor))
        }
        return groups
    }

    /// Whether the token is one of these sockets'.
    func owns(_ token: UInt64) -> Bool { token & 0xFF << 56 == tag }

    /// Sends to every group. What cannot be sent is lost: the next pulse comes soon.
    func send(_ bytes: [UInt8]) {
        for group in groups {
            let reason = bytes.withUnsafeBytes {
                apus_group_send(group.descriptor, group.address.host, group.address.port, $0.baseAddress, $0.count)
            }
            if reason != 0, reason != lastReason {
                warn("cannot send to multicast group \(group.address): \(errnoText(reason))")
            }
            lastReason = reason
        }
    }

    /// Takes what has come to the socket behind the token.
    func receive(_ token: UInt64, _ take: ([UInt8], Address) -> Void) {
        let group = groups[Int(token & 0xFF_FFFF)]
        var text = [CChar](repeating: 0, count: 64)
        var port: UInt16 = 0
        for _ in 0..<ClusterGroups.receivesPerTurn {
            let count = apus_group_receive(group.descriptor, buffer, ClusterGroups.datagramSizeMax, &text, &port)
            guard count >= 0 else { return }
            take([UInt8](UnsafeRawBufferPointer(start: buffer, count: count)), Address(host: addressText(text), port: port))
        }
    }
}
