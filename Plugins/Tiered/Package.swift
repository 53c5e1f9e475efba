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
    name: "Tiered",
    products: [
        .library(name: "Tiered", targets: ["Tiered"]),
        .executable(name: "TieredKit", targets: ["TieredKit"]),
    ],
    dependencies: [
        .package(name: "apus", path: apus),
        // For the kit alone: what is tested as the cold tier.
        .package(name: "RocksDB", path: "../RocksDB"),
        .package(name: "Template", path: "../Template"),
    ],
    targets: [
        .target(name: "Tiered", dependencies: [.product(name: "Storage", package: "apus")], swiftSettings: settings),
        .executableTarget(
            name: "TieredKit",
            dependencies: [
                "Tiered", .product(name: "StorageConformance", package: "apus"), .product(name: "Builtin", package: "apus"),
                .product(name: "RocksDB", package: "RocksDB"), .product(name: "Template", package: "Template"),
            ],
            swiftSettings: settings),
    ]
)
