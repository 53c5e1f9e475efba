internal import Configuration
internal import Glibc
internal import Storage

/// Reads a configuration from disk.
enum ConfigurationFile {
    private static let sizeMax = 1 << 20

    static func load(_ path: String, _ registry: BackendRegistry) throws(ConfigurationError) -> NodeConfiguration {
        guard let bytes = readFile(path, sizeMax: sizeMax) else {
            let problem = errno == EFBIG
                ? "\(path) is larger than \(sizeMax) bytes: not a configuration"
                : "cannot read the configuration \(path): \(errnoText()); check the path and its permissions"
            throw ConfigurationError(problems: [problem])
        }
        return try ConfigurationParser.parse(
            bytes, fileName: path, registry: registry, processors: Processors.allowed.count)
    }
}
