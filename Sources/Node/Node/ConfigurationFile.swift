internal import Configuration
internal import Files
internal import Glibc

/// Reads a configuration from disk.
enum ConfigurationFile {
    private static let byteCountMax = 1 << 20

    static func read(_ path: String) throws(ConfigurationError) -> [UInt8] {
        do throws(FileError) {
            return try readFile(path, byteCountMax: byteCountMax)
        } catch {
            let problem = error.reason == EFBIG
                ? "\(path) is larger than \(byteCountMax) bytes: not a configuration"
                : "cannot read the configuration \(path): \(error.reasonText); check the path and its permissions"
            throw ConfigurationError(problems: [problem])
        }
    }
}
