// swift-tools-version: 6.2
import PackageDescription

// One noun per target; who may import whom is checked by scripts/check-imports against docs/ARCHITECTURE.md.
// Storage plugins are packages of their own under Plugins/ and are not named here.

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("ExistentialAny"),
    .treatAllWarnings(as: .error),
]
let cSettings: [CSetting] = [.treatAllWarnings(as: .error)]

func target(
    _ name: String, in folder: String, _ dependencies: [Target.Dependency] = [],
    linker: [LinkerSetting] = []
) -> Target {
    .target(
        name: name, dependencies: dependencies, path: "Sources/\(folder)/\(name)",
        swiftSettings: settings, linkerSettings: linker)
}
func cTarget(_ name: String, in folder: String) -> Target {
    .target(name: name, path: "Sources/\(folder)/\(name)", cSettings: cSettings)
}
func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, path: "Tests/\(name)", swiftSettings: settings)
}

let package = Package(
    name: "apus",
    products: [
        .executable(name: "apus", targets: ["apus"]),
        // For those who write a backend: the contract, the kit that tests it, and a server with it in the list.
        .library(name: "Storage", targets: ["Storage", "Base"]),
        .library(name: "StorageConformance", targets: ["StorageConformance"]),
        .library(name: "Device", targets: ["Device"]),
        .library(name: "Foreign", targets: ["Foreign"]),
        .library(name: "Commands", targets: ["Commands"]),
        .library(name: "Builtin", targets: ["Builtin"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
    ],
    targets: [
        // Engine
        cTarget("CBase", in: "Engine"),
        target("Base", in: "Engine", ["CBase"]),
        target("Wire", in: "Engine", ["Base"]),
        target("Record", in: "Engine", ["Base"]),
        target("Index", in: "Engine", ["Base", "CBase"]),
        target("Expressions", in: "Engine", ["Base", "Record"]),
        target("Engine", in: "Engine", ["Base", "CBase", "Wire", "Record", "Expressions", "Index", "Storage"]),
        // Backends
        target("Storage", in: "Backends", ["Base"]),
        target("BlockStore", in: "Backends", ["Base", "CBase", "Storage"]),
        target("Memory", in: "Backends", ["Base", "CBase", "BlockStore", "Storage"]),
        target("PMEM", in: "Backends", ["Base", "CBase", "BlockStore", "Storage"]),
        target("Device", in: "Backends", ["Base"]),
        target("Mount", in: "Backends", ["Base", "CBase", "Files", "Storage"]),
        target("StorageConformance", in: "Backends", ["Base", "Storage", "Mount"]),
        target("DeviceLog", in: "Backends", ["Base", "CBase", "Device", "Storage"]),
        cTarget("CBackend", in: "Backends"),
        target("Foreign", in: "Backends", ["Base", "CBackend", "Storage"]),
        target("Builtin", in: "Backends", ["Storage", "Memory", "DeviceLog", "PMEM", "SystemDevice", "SystemSegment"]),
        // Cluster
        target("Fabric", in: "Cluster", ["Base"]),
        target("Partitions", in: "Cluster", ["Base", "Fabric"]),
        target("Membership", in: "Cluster", ["Base", "Fabric"]),
        target("Metadata", in: "Cluster", ["Base", "Fabric", "Membership"]),
        // Client
        .systemLibrary(
            name: "COpenSSL", path: "Sources/Node/COpenSSL", pkgConfig: "libcrypto",
            providers: [.apt(["libssl-dev"])]),
        target("Client", in: "", ["Base", "Wire", "COpenSSL"]),
        // Node
        .systemLibrary(
            name: "CZlib", path: "Sources/Node/CZlib", pkgConfig: "zlib",
            providers: [.apt(["zlib1g-dev"])]),
        target("Files", in: "Node"),
        cTarget("CUring", in: "Node"),
        target(
            "SystemDevice", in: "Node", ["Device", "Files", "CUring"], linker: [.linkedLibrary("uring")]),
        .systemLibrary(
            name: "CPmem", path: "Sources/Node/CPmem", pkgConfig: "libpmem", providers: [.apt(["libpmem-dev"])]),
        target("SystemSegment", in: "Node", ["Base", "CBase", "CPmem", "Files", "PMEM", "Storage"]),
        cTarget("CReactor", in: "Node"),
        target("Reactor", in: "Node", ["Base", "CBase", "CReactor"]),
        target("Logging", in: "Node", ["Base", "CBase"]),
        target("SystemMetadata", in: "Node", ["Base", "Files", "Metadata"]),
        target("Configuration", in: "Node", ["Base", "Storage", "Logging"]),
        target(
            "Assembly", in: "Node",
            ["Base", "Wire", "Engine", "Storage", "Fabric", "Partitions", "Membership", "Metadata", "CZlib"]),
        target(
            "Node", in: "Node",
            [
                "Base", "CBase", "Wire", "Index", "Engine", "Storage", "Mount", "Foreign", "Reactor", "CReactor", "Logging",
                "Configuration", "Assembly", "Files", "Metadata", "SystemMetadata", "SystemSegment", "Fabric",
                "Membership", "Partitions",
            ]),
        target("Bench", in: "Node", ["Base", "CBase", "Wire", "Client", "CReactor"]),
        target(
            "Commands", in: "Node",
            [
                "Client", "Bench", "Files", "Node", "Storage", "DeviceLog", "SystemDevice", "SystemSegment",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]),
        .executableTarget(
            name: "apus", dependencies: ["Commands", "Builtin"], path: "Sources/Node/apus", swiftSettings: settings,
            linkerSettings: [.linkedLibrary("jemalloc")]),
        // Measurements
        .executableTarget(
            name: "IndexBench", dependencies: ["Base", "Index", "CReactor"], path: "bench/IndexBench",
            swiftSettings: settings),
        .executableTarget(
            name: "SweepBench", dependencies: ["Base", "Index", "Engine", "Storage", "Memory", "CReactor"],
            path: "bench/SweepBench", swiftSettings: settings),
        .executableTarget(
            name: "HopBench", dependencies: ["Base", "CBase", "Storage", "Mount", "CReactor"], path: "bench/HopBench",
            swiftSettings: settings),
        .executableTarget(
            name: "DeviceBench",
            dependencies: ["Base", "Storage", "Device", "DeviceLog", "SystemDevice", "CReactor"], path: "bench/DeviceBench",
            swiftSettings: settings),
        .executableTarget(
            name: "MapBench", dependencies: ["Base", "Fabric", "Partitions", "CReactor"], path: "bench/MapBench",
            swiftSettings: settings),
        .executableTarget(
            name: "RingBench", dependencies: ["Base", "Device", "SystemDevice", "CReactor"], path: "bench/RingBench",
            swiftSettings: settings),
        // Tests
        .target(name: "TestSupport", dependencies: ["Base", "Storage"], path: "Tests/TestSupport", swiftSettings: settings),
        .target(
            name: "ReferenceLog", dependencies: ["Base", "Storage", "Device"], path: "Tests/ReferenceLog",
                swiftSettings: settings),
        .target(
            name: "SlowMap", dependencies: ["Base", "Fabric", "Partitions"], path: "Tests/SlowMap", swiftSettings: settings),
        .executableTarget(
            name: "TestNode", dependencies: ["Base", "Storage", "Memory", "Builtin", "Node"], path: "Tests/TestNode",
            swiftSettings: settings),
        .target(
            name: "Simulation",
            dependencies: ["Base", "Fabric", "Membership", "Metadata", "Partitions", "Assembly", "SlowMap"],
            path: "Tests/Simulation", swiftSettings: settings),
        .executableTarget(
            name: "apus-simulate", dependencies: ["Simulation", "Base"], path: "Tests/apus-simulate",
            swiftSettings: settings),
        tests("BaseTests", ["Base", "TestSupport"]),
        tests(
            "SimulationTests",
            ["Base", "Fabric", "Membership", "Metadata", "Partitions", "Assembly", "Simulation", "TestSupport"]),
        tests("FabricTests", ["Base", "Fabric", "TestSupport"]),
        tests("MembershipTests", ["Base", "Fabric", "Membership", "TestSupport"]),
        tests("PartitionsTests", ["Base", "Fabric", "Partitions", "SlowMap", "TestSupport"]),
        tests("MetadataTests", ["Base", "Fabric", "Membership", "Metadata", "TestSupport"]),
        tests("WireTests", ["Base", "Wire", "TestSupport"]),
        tests("RecordTests", ["Base", "Record", "TestSupport"]),
        tests("ExpressionsTests", ["Base", "Record", "Expressions", "TestSupport"]),
        tests("IndexTests", ["Base", "Index", "TestSupport"]),
        tests("AssemblyTests", ["Base", "Fabric", "Membership", "Metadata", "Partitions", "Assembly", "TestSupport"]),
        tests("ClientTests", ["Base", "Wire", "Client", "TestSupport"]),
        tests("MemoryTests", ["Base", "Storage", "Memory", "TestSupport"]),
        tests("PMEMTests", ["Base", "Storage", "StorageConformance", "BlockStore", "PMEM", "TestSupport"]),
        tests("DeviceTests", ["Base", "Device", "TestSupport"]),
        tests("DeviceLogTests", ["Base", "Storage", "StorageConformance", "Device", "DeviceLog", "TestSupport"]),
        tests(
            "EngineCrashTests",
            ["Base", "Wire", "Record", "Index", "Engine", "Storage", "Device", "DeviceLog", "TestSupport"]),
        tests("BenchTests", ["Bench", "TestSupport"]),
        tests("SystemDeviceTests", ["Base", "CBase", "CReactor", "Device", "SystemDevice", "TestSupport"]),
        tests("FilesTests", ["Files", "TestSupport"]),
        tests("SystemMetadataTests", ["Base", "Metadata", "SystemMetadata", "TestSupport"]),
        tests("SystemSegmentTests", ["Base", "PMEM", "Storage", "SystemSegment", "TestSupport"]),
        tests("MountTests", ["Base", "Storage", "Mount", "TestSupport"]),
        tests("ForeignTests", ["Base", "Storage", "CBackend", "Foreign", "TestSupport"]),
        tests(
            "ConformanceTests",
            ["Base", "Storage", "StorageConformance", "Memory", "Device", "ReferenceLog", "TestSupport"]),
        tests("ConfigurationTests", ["Base", "Storage", "Memory", "Logging", "Configuration", "TestSupport"]),
        tests(
            "EngineTests",
            ["Base", "Wire", "Record", "Expressions", "Index", "Engine", "Storage", "Memory", "TestSupport"]),
    ]
)
