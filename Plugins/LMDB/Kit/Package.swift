// swift-tools-version: 6.2
import PackageDescription

// The conformance kit for the shared object. In Plugins/LMDB:
//     swift run --package-path Kit -c release LMDBKit .build/apus-lmdb.so

let apus = Context.environment["APUS_ROOT"] ?? "../../.."
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("ExistentialAny"),
    .treatAllWarnings(as: .error),
]

let package = Package(
    name: "LMDBKit",
    products: [.executable(name: "LMDBKit", targets: ["LMDBKit"])],
    dependencies: [.package(name: "apus", path: apus)],
    targets: [
        .executableTarget(
            name: "LMDBKit",
            dependencies: [
                .product(name: "Foreign", package: "apus"), .product(name: "Storage", package: "apus"),
                .product(name: "StorageConformance", package: "apus"),
            ],
            swiftSettings: settings)
    ]
)
