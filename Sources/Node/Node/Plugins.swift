internal import Configuration
internal import Foreign
internal import Glibc
internal import Storage

/// The registry of a node: the backends that were compiled in, and the shared objects that its configuration names.
enum Plugins {
    /// `bytes` is the configuration, nil for none. All plugins that do not fit are reported together.
    static func registry(
        _ backends: [BackendDescriptor], _ bytes: [UInt8]?, fileName: String
    ) throws(ConfigurationError) -> BackendRegistry {
        var descriptors = backends
        var problems: [String] = []
        for (path, line) in try ConfigurationParser.pluginPaths(bytes ?? [], fileName: fileName) {
            do throws(PluginError) {
                descriptors.append(try Foreign.load(path: absolute(path, beside: fileName), with: loader))
            } catch {
                problems += error.problems.map { "\(fileName):\(line): \($0)" }
            }
        }
        guard problems.isEmpty else { throw ConfigurationError(problems: problems) }
        do throws(NegotiationError) {
            return try BackendRegistry(descriptors)
        } catch {
            throw ConfigurationError(problems: error.problems)
        }
    }

    /// A relative path is one from the configuration's directory; without a slash the dynamic loader would search elsewhere.
    private static func absolute(_ path: String, beside fileName: String) -> String {
        guard !path.hasPrefix("/") else { return path }
        guard let slash = fileName.lastIndex(of: "/") else { return "./" + path }
        return fileName[...slash] + path
    }

    private static var loader: PluginLoader {
        PluginLoader(
            open: { path in
                guard let handle = dlopen(path, RTLD_NOW | RTLD_LOCAL) else {
                    return .refused(dlerror().map { String(cString: $0) } ?? "no reason given")
                }
                return .library(handle)
            },
            symbol: { handle, name in dlsym(handle, name) },
            close: { handle in _ = dlclose(handle) })
    }
}
