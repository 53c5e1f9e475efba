// swift-tools-version: 6.2
import PackageDescription

// The fuzzers: a package of its own, because everything in it is built with libFuzzer's and the address sanitizer's
// instrumentation. The sources are those of the root package, through a link. `scripts/fuzz` builds and runs it.

let instrumented = ["-sanitize=fuzzer,address", "-parse-as-library", "-assert-config", "Debug"]
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("ExistentialAny"),
    .unsafeFlags(instrumented + ["-package-name", "apus", "-enable-testing"]),
]

func target(_ name: String, in folder: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, path: "Sources/Apus/\(folder)/\(name)", swiftSettings: settings)
}
func fuzzer(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(
        name: name, dependencies: dependencies, path: "Sources/\(name)", swiftSettings: settings,
        linkerSettings: [.unsafeFlags(["-sanitize=fuzzer,address", "-use-ld=lld"])])
}

let package = Package(
    name: "apus-fuzz",
    targets: [
        .target(name: "CBase", path: "Sources/Apus/Engine/CBase"),
        .systemLibrary(name: "CZlib", path: "Sources/Apus/Node/CZlib", pkgConfig: "zlib"),
        target("Base", in: "Engine", ["CBase"]),
        target("Wire", in: "Engine", ["Base"]),
        target("Record", in: "Engine", ["Base"]),
        target("Index", in: "Engine", ["Base", "CBase"]),
        target("Storage", in: "Backends", ["Base"]),
        target("BlockStore", in: "Backends", ["Base", "CBase", "Storage"]),
        target("Memory", in: "Backends", ["Base", "CBase", "BlockStore", "Storage"]),
        target("Expressions", in: "Engine", ["Base", "Record"]),
        target("Engine", in: "Engine", ["Base", "CBase", "Wire", "Record", "Expressions", "Index", "Storage"]),
        target("Fabric", in: "Cluster", ["Base"]),
        target("Partitions", in: "Cluster", ["Base", "Fabric"]),
        target("Membership", in: "Cluster", ["Base", "Fabric"]),
        target("Metadata", in: "Cluster", ["Base", "Fabric", "Membership"]),
        target(
            "Assembly", in: "Node",
            ["Base", "Wire", "Engine", "Storage", "Fabric", "Partitions", "Membership", "Metadata", "CZlib"]),
        target("Logging", in: "Node", ["Base", "CBase"]),
        target("Configuration", in: "Node", ["Base", "Storage", "Logging"]),
        .target(name: "FuzzDriver", path: "Sources/FuzzDriver", swiftSettings: settings),
        fuzzer("FuzzFrames", ["FuzzDriver", "Base", "Wire", "Index", "Storage", "Memory", "Engine", "Assembly"]),
        fuzzer("FuzzCluster", ["FuzzDriver", "Base", "Fabric", "Membership", "Metadata", "Assembly"]),
        fuzzer("FuzzDecoders", ["FuzzDriver", "Base", "Fabric", "Membership", "Metadata", "Partitions"]),
        fuzzer("FuzzExpressions", ["FuzzDriver", "Base", "Record", "Expressions"]),
        fuzzer("FuzzInfo", ["FuzzDriver", "Base", "Wire"]),
        fuzzer("FuzzConfiguration", ["FuzzDriver", "Base", "Storage", "Memory", "Configuration"]),
    ]
)
