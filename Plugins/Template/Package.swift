// swift-tools-version: 6.2
import PackageDescription

// A storage backend of your own. Copy this folder, replace the word Template (docs/WRITE-A-BACKEND.md says how), and set
// APUS_ROOT to the folder where Apus is.

let apus = Context.environment["APUS_ROOT"] ?? "../.."
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("ExistentialAny"),
    .treatAllWarnings(as: .error),
]

let package = Package(
    name: "Template",
    products: [
        .library(name: "Template", targets: ["Template"]),
        .executable(name: "TemplateKit", targets: ["TemplateKit"]),
        .executable(name: "template-server", targets: ["template-server"]),
    ],
    dependencies: [.package(name: "apus", path: apus)],
    targets: [
        // The backend.
        .target(name: "Template", dependencies: [.product(name: "Storage", package: "apus")], swiftSettings: settings),
        // The tests that come with the contract.
        .executableTarget(
            name: "TemplateKit",
            dependencies: ["Template", .product(name: "StorageConformance", package: "apus")], swiftSettings: settings),
        // A server with the backend in it.
        .executableTarget(
            name: "template-server",
            dependencies: [
                "Template", .product(name: "Builtin", package: "apus"), .product(name: "Commands", package: "apus"),
            ],
            swiftSettings: settings),
    ]
)
