internal import CReactor
internal import Glibc

/// The network interfaces of this machine.
enum Interfaces {
    /// The addresses by which a listener bound to `address` can be reached: itself, or for the wildcard every
    /// address of the same family, loopback only if there is nothing else.
    static func addresses(behind address: String) -> [String] {
        guard address == "0.0.0.0" || address == "::" else { return [address] }
        let family = address == "::" ? AF_INET6 : AF_INET
        let all = numericAddresses(family: family)
        let outer = all.filter { !$0.hasPrefix("127.") && $0 != "::1" && !$0.hasPrefix("fe80") }
        return outer.isEmpty ? all : outer
    }

    private static func numericAddresses(family: Int32) -> [String] {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return [] }
        defer { freeifaddrs(first) }
        var addresses: [String] = []
        var next = first
        while let entry = next {
            next = entry.pointee.ifa_next
            guard let address = entry.pointee.ifa_addr, Int32(address.pointee.sa_family) == family else { continue }
            let size = family == AF_INET6 ? MemoryLayout<sockaddr_in6>.size : MemoryLayout<sockaddr_in>.size
            var text = [CChar](repeating: 0, count: 64)
            guard getnameinfo(address, socklen_t(size), &text, 64, nil, 0, NI_NUMERICHOST) == 0 else { continue }
            addresses.append(addressText(text))
        }
        return addresses
    }
}

/// The numeric address that C has written into `text`, up to its zero.
func addressText(_ text: [CChar]) -> String {
    String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
