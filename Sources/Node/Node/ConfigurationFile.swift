internal import Configuration
internal import Glibc
internal import Storage

/// Reads a configuration from disk.
enum ConfigurationFile {
    private static let sizeMax = 1 << 20

    static func load(_ path: String, _ registry: BackendRegistry) throws(ConfigurationError) -> NodeConfiguration {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw ConfigurationError(problems: [
                "cannot read the configuration \(path): \(errnoText()); check the path and its permissions"
            ])
        }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count <= sizeMax {
            let got = block.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
            guard got >= 0 else {
                throw ConfigurationError(problems: ["cannot read the configuration \(path): \(errnoText())"])
            }
            if got == 0 {
                return try ConfigurationParser.parse(
                    bytes, fileName: path, registry: registry, processors: Processors.allowed.count)
            }
            bytes += block[..<got]
        }
        throw ConfigurationError(problems: ["\(path) is larger than \(sizeMax) bytes: not a configuration"])
    }
}
