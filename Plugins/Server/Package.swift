// swift-tools-version: 6.2
import PackageDescription

// A server with every plugin that is here by source. `scripts/plugins build` builds it with the flags of the Makefile;
// the kits belong to the plugins' own packages, and `scripts/plugins kit` builds them there.

let apus = Context.environment["APUS_ROOT"] ?? "../.."
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("ExistentialAny"),
    .treatAllWarnings(as: .error),
]

let package = Package(
    name: "Server",
    products: [.executable(name: "apus-full", targets: ["apus-full"])],
    dependencies: [
        .package(name: "apus", path: apus),
        .package(name: "RocksDB", path: "../RocksDB"),
        .package(name: "Template", path: "../Template"),
        .package(name: "Tiered", path: "../Tiered"),
    ],
    targets: [
        .executableTarget(
            name: "apus-full",
            dependencies: [
                .product(name: "Builtin", package: "apus"), .product(name: "Commands", package: "apus"),
                .product(name: "RocksDB", package: "RocksDB"), .product(name: "Template", package: "Template"),
                .product(name: "Tiered", package: "Tiered"),
            ],
            swiftSettings: settings, linkerSettings: [.linkedLibrary("jemalloc")])
    ]
)
