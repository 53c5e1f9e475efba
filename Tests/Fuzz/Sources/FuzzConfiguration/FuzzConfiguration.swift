import Base
import Configuration
import FuzzDriver
import Memory
import Storage

private let registry = try! BackendRegistry([Memory.descriptor])

private func fuzzConfiguration(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = Array(UnsafeRawBufferPointer(start: data, count: count))
    do throws(ConfigurationError) {
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
