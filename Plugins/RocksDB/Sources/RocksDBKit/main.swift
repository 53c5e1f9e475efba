// Holds the backend to its contract and its promises: --help says what can be asked for. Small buffers and caches, so that
// files are written and read.
import Glibc
import RocksDB
import StorageConformance

exit(
    Kit.main(
        Array(CommandLine.arguments.dropFirst()),
        ownCases: [
            OwnCase("log-broken-tail", DamagedLog.brokenTail), OwnCase("log-broken-middle", DamagedLog.brokenMiddle),
        ]
    ) {
        DirectorySubject(
            descriptor: RocksDB.descriptor,
            settings: [(name: "write-buffer-size", value: "1048576"), (name: "cache-size", value: "1048576")],
            small: [(name: "data-size", value: "8388608")])
    })
