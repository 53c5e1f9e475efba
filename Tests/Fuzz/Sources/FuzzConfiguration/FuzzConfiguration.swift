import Base
import Configuration
import FuzzDriver
import Memory
import Storage

/// A backend over others, so that settings inside settings are met.
private let pair = BackendDescriptor(
    name: "pair", contract: .current, formats: 1...1, capabilities: [], limits: Memory.descriptor.limits, medium: .none,
    settings: [SettingSchema("part", .backend, help: "")],
    composition: Composition(setting: "part") { (capabilities, limits) in (capabilities, limits) },
    open: { (_) throws(StorageError) in throw .closed })
private let registry = try! BackendRegistry([Memory.descriptor, pair])

private func fuzzConfiguration(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = Array(UnsafeRawBufferPointer(start: data, count: count))
    do throws(ConfigurationError) {
        for (path, line) in try ConfigurationParser.pluginPaths(bytes, fileName: "f") {
            precondition(line > 0 && path.utf8.count < 4096)
        }
        let good = try ConfigurationParser.parse(bytes, fileName: "f", registry: registry, processors: 2)
        precondition(!good.namespaces.isEmpty)
        for namespace in good.namespaces { precondition(!good.values(namespace: namespace.name).isEmpty) }
        for context in [NodeConfiguration.Context.service, .network, .security, .xdr] { _ = good.values(context: context) }
    } catch {
        precondition(!error.problems.isEmpty && error.problems.count <= 20)
        for problem in error.problems { precondition(problem.hasPrefix("f:")) }
    }
    return 0
}

@_cdecl("FuzzConfiguration_main")
public func entry(_ count: CInt, _ words: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?) -> CInt {
    runFuzzer(count, words) { fuzzConfiguration($0, $1) }
}
