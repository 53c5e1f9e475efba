// Loads a storage plugin as a node would, and runs the conformance kit on it:
//
//     LMDBKit <path of the shared object> [options of the kit, --help lists them]
//
// It works for every plugin, in a directory or in memory; only the settings of the small medium are LMDB's.
import Foreign
import Glibc
import Storage
import StorageConformance

/// The system's loader, in the form that `Foreign` wants it.
let loader = PluginLoader(
    open: { path in
        guard let handle = dlopen(path, RTLD_NOW | RTLD_LOCAL) else {
            return .refused(dlerror().map { String(cString: $0) } ?? "no reason given")
        }
        return .library(handle)
    },
    symbol: { handle, name in dlsym(handle, name) },
    close: { handle in dlclose(handle) })

func subject(_ descriptor: BackendDescriptor) -> any ConformanceSubject {
    guard descriptor.medium == .directory else { return VolatileSubject(descriptor: descriptor) }
    guard descriptor.name == "lmdb" else { return DirectorySubject(descriptor: descriptor) }
    return DirectorySubject(
        descriptor: descriptor, settings: [("map-size", "\(1 << 30)")], small: [("map-size", "\(8 << 20)")])
}

guard CommandLine.arguments.count > 1 else {
    print("usage: LMDBKit <path of the shared object> [options of the kit]")
    exit(64)
}
do throws(PluginError) {
    let descriptor = try Foreign.load(path: CommandLine.arguments[1], with: loader)
    exit(Kit.main(Array(CommandLine.arguments.dropFirst(2))) { subject(descriptor) })
} catch {
    for problem in error.problems { print(problem) }
    exit(1)
}
