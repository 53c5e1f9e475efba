// Holds the backend, over another one, to the contract and to the promises of both. Usage: TieredKit
// rocksdb|template|memory OPTIONS; the options are those of every kit, --help names them. So little is hot that the kit's
// images do not all fit.
import Builtin
import Glibc
import RocksDB
import Storage
import StorageConformance
import Template
import Tiered

let parts = Builtin.descriptors + [RocksDB.descriptor, Template.descriptor]
var arguments = Array(CommandLine.arguments.dropFirst())
guard let cold = arguments.first, parts.contains(where: { $0.name == cold }) else {
    print("usage: TieredKit \(parts.map(\.name).joined(separator: "|")) OPTIONS")
    exit(64)
}
arguments.removeFirst()
let small: [String: String] = ["rocksdb": "8388608", "memory": "33554432"]
exit(
    Kit.main(arguments) {
        DirectorySubject(
            descriptor: Tiered.descriptor, settings: [(name: "hot-size", value: "1048576"), (name: "cold", value: cold)],
            small: small[cold].map { [(name: "cold.data-size", value: $0)] }, parts: parts)
    })
