// swift-tools-version: 6.2
import PackageDescription

let apus = Context.environment["APUS_ROOT"] ?? "../.."
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("ExistentialAny"),
    .treatAllWarnings(as: .error),
]

let package = Package(
    name: "RocksDB",
    products: [
        .library(name: "RocksDB", targets: ["RocksDB"]),
        .executable(name: "RocksDBKit", targets: ["RocksDBKit"]),
    ],
    dependencies: [.package(name: "apus", path: apus)],
    targets: [
        .systemLibrary(
            name: "CRocksDB", path: "Sources/CRocksDB", pkgConfig: "rocksdb",
            providers: [.apt(["librocksdb-dev"])]),
        .target(
            name: "RocksDB", dependencies: ["CRocksDB", .product(name: "Storage", package: "apus")],
            swiftSettings: settings),
        .executableTarget(
            name: "RocksDBKit",
            dependencies: [
                "RocksDB", .product(name: "Storage", package: "apus"),
                .product(name: "StorageConformance", package: "apus"),
            ],
            swiftSettings: settings),
    ]
)
