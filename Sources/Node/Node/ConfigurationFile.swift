internal import Configuration
internal import Glibc

/// Reads a configuration from disk.
enum ConfigurationFile {
    private static let sizeMax = 1 << 20

    static func read(_ path: String) throws(ConfigurationError) -> [UInt8] {
        guard let bytes = readFile(path, sizeMax: sizeMax) else {
            let problem = errno == EFBIG
                ? "\(path) is larger than \(sizeMax) bytes: not a configuration"
                : "cannot read the configuration \(path): \(errnoText()); check the path and its permissions"
            throw ConfigurationError(problems: [problem])
        }
        return bytes
    }
}
