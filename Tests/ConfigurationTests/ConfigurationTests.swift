import Base
import Configuration
import Logging
import Memory
import Storage
import TestSupport
import Testing

@Suite struct ConfigurationTests {
    private let registry = try! BackendRegistry([Memory.descriptor])

    private func parse(_ text: String) throws(ConfigurationError) -> NodeConfiguration {
        try ConfigurationParser.parse(Array(text.utf8), fileName: "a.conf", registry: registry, processors: 3)
    }

    private func problems(_ text: String) -> [String] {
        do throws(ConfigurationError) {
            _ = try parse(text)
            return []
        } catch { return error.problems }
    }

    private let small = "namespace test {\n storage-engine memory\n}\n"

    @Test func everythingWithSuffixes() throws {
        let configuration = try parse("""
            # a comment
            service {
                proto-fd-max 2048         # more of it
                proto-fd-idle-ms 2m
                service-threads 7
                cluster-name blue
                node-id 0xA1
                ticker-interval 1h
            }
            logging {
                console {
                    context any warning
                    context rw detail
                }
                file /tmp/x.log { context any info }
            }
            network {
                service {
                    address 127.0.0.1
                    address ::1
                    port 4000
                    access-address 10.0.0.9
                }
                heartbeat
                {
                    mode mesh
                    mesh-seed-address-port 10.0.0.1 3002
                    mesh-seed-address-port 10.0.0.2 3002
                }
            }
            namespace one {
                default-ttl 30d
                nsup-period 120
                max-record-size 64K
                storage-engine memory { data-size 2G }
            }
            namespace two { storage-engine memory
            }
            """)
        #expect(configuration.service.protoFdMax == 2048 && configuration.service.protoFdIdleMs == 120_000)
        #expect(configuration.service.serviceThreads == 7 && configuration.service.clusterName == "blue")
        #expect(configuration.service.nodeID == 0xA1 && configuration.service.tickerInterval == 3600)
        #expect(configuration.network.service.bindAddresses == ["127.0.0.1", "::1"])
        #expect(configuration.network.service.port == 4000 && configuration.network.admin.port == nil)
        #expect(configuration.network.service.accessAddresses == ["10.0.0.9"])
        #expect(configuration.namespaces.map(\.name) == ["one", "two"])
        let one = configuration.namespaces[0]
        #expect(one.defaultTtl == 30 * 86400 && one.maxRecordSize == 65536)
        #expect(one.storageSettings.number("data-size") == 2 << 30)
        #expect(configuration.namespaces[1].storageSettings.number("data-size") == 4 << 30)
        #expect(configuration.logging.map(\.target) == [.console, .file("/tmp/x.log")])
        #expect(configuration.logging[0].levels == [
            .init(context: nil, level: .warning), .init(context: .rw, level: .detail),
        ])
        let seeds = configuration.network.heartbeat?.seeds ?? []
        #expect(seeds.map { "\($0.host) \($0.port)" } == ["10.0.0.1 3002", "10.0.0.2 3002"])
        #expect(configuration.notes == [])
        let network = configuration.values(context: .network)
        #expect(network.filter { $0.0 == "heartbeat.mesh-seed-address-port" }.map(\.1) == ["10.0.0.1 3002", "10.0.0.2 3002"])
        #expect(configuration.values(namespace: "one").contains { $0 == ("storage-engine.data-size", "\(2 << 30)") })
    }

    @Test func defaults() throws {
        let configuration = try parse(small)
        #expect(configuration.service.serviceThreads == 3 && configuration.service.protoFdMax == 15000)
        #expect(configuration.network.service.bindAddresses == ["any"] && configuration.network.service.port == 3000)
        #expect(configuration.service.transactionMaxMs == 1000 && configuration.namespaces[0].transactionPendingLimit == 20)
        #expect(configuration.notes == [])
    }

    /// Without a heartbeat block a node is alone; with one, everything has a default.
    @Test func heartbeatAndFabric() throws {
        #expect(try parse(small).network.heartbeat == nil)
        let network = try parse(small + "network { heartbeat {\n}\n}").network
        let heartbeat = try #require(network.heartbeat)
        #expect(heartbeat.mode == .mesh && heartbeat.endpoint.port == 3002 && network.fabric.port == 3001)
        #expect(heartbeat.intervalMilliseconds == 150 && heartbeat.timeoutIntervals == 10)
        #expect(heartbeat.connectTimeoutMilliseconds == 500 && heartbeat.datagramSizeMax == 1500 && heartbeat.seeds.isEmpty)
        let text = "mesh-seed-address-port a.example:4000\nmesh-seed-address-port [fd00::1]:5\nmesh-seed-address-port ::2 6"
        let found = try parse(small + "network { heartbeat {\n\(text)\n}\n}").network.heartbeat?.seeds
        #expect(found?.map { "\($0.host) \($0.port)" } == ["a.example 4000", "fd00::1 5", "::2 6"])
        for bad in ["a", "a 0", "a 65536", ":5", "a b c"] {
            let found = problems(small + "network { heartbeat {\nmesh-seed-address-port \(bad)\n}\n}")
            #expect(found.first?.contains("a.conf:5: mesh-seed-address-port takes an address") ?? false, "\(bad)")
        }
        #expect(problems(small + "network { heartbeat {\nmode multicast\n}\n}").first?.contains("needs a group") ?? false)
        let group = "mode multicast\nmulticast-group 239.1.99.2\n"
        #expect(problems(small + "network { heartbeat {\n\(group)port 0\n}\n}").first?.contains("needs a port") ?? false)
        let multicast = try parse(small + "network { heartbeat {\n\(group)mtu 9000\nmulticast-ttl 2\n}\n}").network.heartbeat
        #expect(multicast?.multicastGroups == ["239.1.99.2"] && multicast?.datagramSizeMax == 9000)
        #expect(multicast?.multicastTimeToLive == 2 && multicast?.mode == .multicast)
    }

    /// What a start would fail at with a message that leads elsewhere.
    @Test func portsOfOneNodeDiffer() throws {
        func found(_ network: String) -> String { problems(small + "network {\n\(network)\n}").first ?? "" }
        let service = "service {\naddress 127.0.0.1\nport 4000\n}\n"
        #expect(found(service + "heartbeat {\naddress any\nport 4000\n}")
            .contains("a.conf:9: heartbeat and service both listen on port 4000"))
        let fabric = found(service + "heartbeat {\n}\nfabric {\naddress 127.0.0.1\nport 4000\n}")
        #expect(fabric.contains("fabric and service both"))
        #expect(found("heartbeat {\nport 3001\n}").contains("heartbeat and fabric both listen on port 3001"))
        #expect(found("service {\nport 3002\n}\nheartbeat {\n}").contains("heartbeat and service both listen on port 3002"))
        #expect(found(service + "admin {\nport 4000\n}").contains("admin and service both"))
        for fine in [
            service + "fabric {\nport 4000\n}", service + "heartbeat {\naddress 127.0.0.2\nport 4000\n}",
            service + "heartbeat {\nmode multicast\nmulticast-group 239.1.99.2\nport 4000\n}",
            "service {\nport 0\n}\nheartbeat {\nport 0\n}\nfabric {\nport 0\n}",
            service + "heartbeat {\naddress ::1\nport 4000\n}",
        ] { #expect(found(fine).isEmpty, "\(fine)") }
    }

    @Test func groupsAndDatagrams() throws {
        func found(_ line: String) -> String { problems(small + "network { heartbeat {\n\(line)\n}\n}").first ?? "" }
        for bad in ["10.0.0.1", "223.255.255.255", "240.0.0.1", "239.1.99", "239.1.99.256", "fe80::1", "ff::1", "group"] {
            let problem = found("multicast-group \(bad)")
            #expect(problem.contains("a.conf:5: multicast-group: \(bad) is no address of a group"), "\(bad)")
        }
        for fine in ["224.0.0.0", "239.255.255.255", "ff02::1:3", "FF15::9"] {
            #expect(found("multicast-group \(fine)").isEmpty, "\(fine)")
        }
        for bad in [1, 100, 575] { #expect(found("mtu \(bad)").contains("a.conf:5: mtu: \(bad) is too small"), "\(bad)") }
        for fine in [0, 576, 9000] { #expect(found("mtu \(fine)").isEmpty) }
        let text = small + "network { heartbeat {\n}\n}"
        #expect(throws: SettingRefusal.self) { try parse(text).changing(.network, "heartbeat.mtu", to: "100") }
        #expect(try parse(text).changing(.network, "heartbeat.mtu", to: "1400").new == "1400")
    }

    @Test func settingsOfTheCluster() throws {
        let text = "service { min-cluster-size 3\nstart-wait 5\nshutdown-grace 7\n}\n"
            + "namespace test {\nstorage-engine memory\nrack-id 4\nreplication-factor 3\nactive-rack 2\n"
            + "prefer-uniform-balance false\n}\n"
        let configuration = try parse(text)
        let service = configuration.service
        #expect((service.minClusterSize, service.startWait, service.shutdownGrace) == (3, 5, 7))
        let namespace = configuration.namespaces[0]
        #expect(namespace.number("rack-id") == 4 && namespace.number("replication-factor") == 3)
        #expect(namespace.number("active-rack") == 2 && !namespace.flag("prefer-uniform-balance"))
        #expect(configuration.notes == [])
        let defaults = try parse(small)
        #expect((defaults.service.minClusterSize, defaults.service.startWait, defaults.service.shutdownGrace) == (1, 15, 20))
        #expect(defaults.namespaces[0].number("replication-factor") == 2)
    }

    @Test func misspeltNamesAreExplained() {
        #expect(problems(small + "service {\n proto-fd-mx 5\n}") == [
            "a.conf:5: 'proto-fd-mx' is not known in 'service'; did you mean 'proto-fd-max'?"
        ])
        #expect(problems(small + "servce {\n}")[0].contains("did you mean 'service'?"))
        #expect(problems("namespace t {\n storage-engine memroy\n}")[0].contains("did you mean 'memory'?"))
        #expect(problems(small + "service {\n max-record-size 5\n}")[0].contains("belongs into 'namespace'"))
        #expect(problems(small + "logging {\n console {\n context rww info\n }\n}")[0].contains("did you mean 'rw'?"))
        let size = problems("namespace t {\n storage-engine memory {\n data-sise 1G\n }\n}")
        #expect(size[0].contains("did you mean 'data-size'?"))
    }

    @Test func valuesThatDoNotFit() {
        func one(_ line: String) -> String { problems(small + "service {\n\(line)\n}").first ?? "" }
        #expect(one("proto-fd-max many").hasPrefix("a.conf:5: proto-fd-max: 'many' is not"))
        #expect(one("proto-fd-max").contains("takes one value"))
        #expect(one("proto-fd-max 1 2").contains("takes one value"))
        #expect(one("service-threads 0").contains("from 1 to 4096"))
        #expect(one("auto-pin gpu").contains("none, cpu, numa"))
        #expect(one("microsecond-histograms perhaps").contains("neither true nor false"))
        #expect(one("proto-fd-max 99999999999999999999").contains("not a whole number"))
        #expect(one("proto-fd-idle-ms 9223372036854775807d").contains("out of bounds"))
        #expect(one("node-id zebra").contains("hexadecimal"))
    }

    @Test func everyProblemIsReported() {
        let text = "namespace a {\n default-tl 5\n max-record-size 9G\n}\nservice {\n user\n foo 1\n}\nxyzzy {\n}\n"
        let found = problems(text)
        #expect(found.count == 6)
        for line in [2, 3, 6, 7, 9] { #expect(found.contains { $0.hasPrefix("a.conf:\(line):") }, "line \(line)") }
        #expect(found.contains { $0.contains("no valid storage-engine") })
        #expect(problems("service {\n" + String(repeating: "nonsense 1\n", count: 500) + "}").count == 20)
    }

    @Test func braces() {
        #expect(problems("service {\n").first == "a.conf:1: this { is never closed")
        #expect(problems("}\n").first == "a.conf:1: a } without a { before it")
        #expect(problems("{\n}").first?.contains("without a name") == true)
        #expect(problems(String(repeating: "a {\n", count: 2000)).first?.contains("nested deeper") == true)
        #expect(problems("namespace {\n}").first?.contains("one name") == true)
        #expect(problems(small + small).first?.contains("already, in line 1") == true)
        #expect(problems("").first?.contains("no namespace") == true)
        #expect(problems("service \u{1} {\n}").first?.contains("no text") == true)
    }

    @Test func noticesWithoutEffect() throws {
        let configuration = try parse(small + "service {\n info-threads 4\n}\nsecurity {\n}\n")
        #expect(configuration.notes.contains("a.conf:5: 'info-threads' is known but has no effect yet"))
        #expect(configuration.notes.contains { $0.contains("EVERY CLIENT MAY DO EVERYTHING") })
    }

    @Test func dependentSettings() {
        let text = "namespace t {\n default-ttl 5\n storage-engine memory\n}"
        #expect(problems(text).first?.contains("needs nsup-period") == true)
        let long = String(repeating: "n", count: 32)
        #expect(problems("namespace \(long) {\n storage-engine memory\n}").first?.contains("31 bytes") == true)
    }

    @Test func development() throws {
        let configuration = try NodeConfiguration.development(workDirectory: "./var", registry: registry, processors: 2)
        #expect(configuration.network.service.bindAddresses == ["127.0.0.1"] && configuration.network.service.port == 3000)
        #expect(configuration.network.admin.port == 3003 && configuration.namespaces.map(\.name) == ["test"])
    }

    // ---- Backends that work over others, plugins ----

    private func withParts() throws -> BackendRegistry {
        let cold = BackendDescriptor(
            name: "cold-one", contract: .current, formats: 1...1, capabilities: [.keyed, .blocking, .durableAtCommit],
            limits: BackendLimits(imageSizeMax: 1 << 20, locationBits: 44, atomicWriteSize: 0), medium: .directory,
            settings: [SettingSchema("cache", .size(0...1 << 30), default: "1M", help: "")],
            open: { (_) throws(StorageError) in throw .closed })
        let pair = BackendDescriptor(
            name: "pair", contract: .current, formats: 1...1, capabilities: [],
            limits: cold.limits, medium: .none,
            settings: [SettingSchema("hot", .size(0...1 << 30), default: "2M", help: ""),
                SettingSchema("part", .backend, help: "")],
            composition: Composition(setting: "part") { (capabilities, limits) in (capabilities, limits) },
            open: { (_) throws(StorageError) in throw .closed })
        return try BackendRegistry([Memory.descriptor, cold, pair])
    }

    private func parse(_ text: String, _ registry: BackendRegistry) throws(ConfigurationError) -> NodeConfiguration {
        try ConfigurationParser.parse(Array(text.utf8), fileName: "a.conf", registry: registry, processors: 3)
    }

    @Test func aBackendOverAnotherOne() throws {
        let configuration = try parse("""
            namespace one {
                storage-engine pair {
                    hot 4M
                    commit-to-device true
                    part cold-one {
                        cache 8K
                        storage-threads 2
                    }
                }
            }
            """, try withParts())
        let settings = configuration.namespaces[0].storageSettings
        #expect(settings.number("hot") == 4 << 20 && configuration.namespaces[0].commitToDevice
            && settings.text("part") == "cold-one")
        let part = settings.part("part")
        #expect(part.number("cache") == 8192 && part.number("storage-threads") == 2
            && part.number("storage-queue-max") == 4096)
        #expect(part.text("commit-to-device") == nil && part.text("directory") == nil && part.text("hot") == nil)
        #expect(configuration.values(namespace: "one").contains { $0 == ("storage-engine.part.cache", "8192") })
    }

    @Test func problemsInsideAPart() throws {
        let registry = try withParts()
        func problems(_ part: String) -> String {
            do {
                _ = try parse("namespace one {\n storage-engine pair {\n \(part)\n }\n}\n", registry)
                return "none"
            } catch { return error.problems.joined(separator: "\n") }
        }
        #expect(problems("part cold-on { }").contains("a.conf:3: there is no storage-engine 'cold-on'"))
        #expect(problems("part cold-on { }").contains("did you mean 'cold-one'?"))
        #expect(problems("part cold-one { cach 1M\n }").contains("did you mean 'cache'?"))
        #expect(problems("part cold-one { cache 1T\n }").contains("cache: '1T' is out of bounds"))
        #expect(problems("part").contains("takes the name of one storage-engine"))
        #expect(problems("part cold-one\n part memory").contains("was set already, in line 3"))
        #expect(problems("part cold-one { commit-to-device true\n }").contains("'commit-to-device' is not known"))
        #expect(problems("part cold-one") == "none")
    }

    /// What every backend of a kind can be told, without its author's doing.
    @Test func standardSettings() throws {
        let configuration = try parse("namespace one {\n storage-engine cold-one { commit-to-device true\n }\n}\n",
            try withParts())
        #expect(configuration.namespaces[0].commitToDevice)
        #expect(configuration.namespaces[0].storageSettings.number("stop-writes-used-pct") == 70)
        #expect(problems("namespace one {\n storage-engine memory { storage-threads 2\n }\n}\n").count == 1)
    }

    @Test func pluginPaths() throws {
        let text = "plugin {\n path /a.so\n path b.so # relative\n}\nnamespace x { storage-engine not-known-yet\n}\n"
        let paths = try ConfigurationParser.pluginPaths(Array(text.utf8), fileName: "a.conf")
        #expect(paths.map(\.path) == ["/a.so", "b.so"] && paths.map(\.line) == [2, 3])
        #expect(throws: ConfigurationError.self) { try ConfigurationParser.pluginPaths(Array("plugin {".utf8),
            fileName: "a.conf") }
    }

    // ---- Index types and engines that other settings pick ----

    @Test func indexTypes() throws {
        func namespace(_ index: String) throws -> NamespaceConfiguration {
            try parse("namespace test {\n \(index)\n storage-engine memory\n}\n").namespaces[0]
        }
        #expect(try namespace("").indexType == nil)
        #expect(try namespace("index-type shmem").indexType == .shmem)
        #expect(try namespace("index-type heap").indexType == .heap)
        let pmem = try namespace(
            "index-stage-size 128M\n index-type pmem {\n mount /mnt/a\n mount /mnt/b\n mounts-budget 4G\n }")
        #expect(pmem.indexType == .pmem)
        #expect(pmem.indexMounts == ["/mnt/a", "/mnt/b"])
        #expect(pmem.indexMountsBudget == 4 << 30)
        #expect(pmem.indexStageSize == 128 << 20)
        let flash = try namespace("index-type flash {\n mount /mnt/a\n mounts-budget 4G\n }")
        #expect(flash.indexType == nil && flash.indexMounts == [] && flash.indexMountsBudget == 0, "it has no effect")
        func problem(_ index: String, _ text: String) -> Bool {
            problems("namespace test {\n \(index)\n storage-engine memory\n}").contains { $0.contains(text) }
        }
        #expect(problem("index-type pmem", "needs a mount"))
        #expect(problem("index-type ram", "the types are heap"))
        #expect(problem("index-type heap {\n mount /a\n }", "takes no mount"))
        let shown = try parse("namespace test {\n index-type shmem {\n mount /dev/shm\n }\n storage-engine memory\n}")
            .values(namespace: "test")
        #expect(shown.contains { $0 == ("index-type", "shmem") })
        #expect(shown.contains { $0 == ("index-type.mount[0]", "/dev/shm") })
    }

    @Test func aSettingPicksAnotherBackend() throws {
        func descriptor(
            _ name: String, _ settings: [SettingSchema], _ alternative: Alternative? = nil
        ) -> BackendDescriptor {
            BackendDescriptor(
                name: name, contract: .current, formats: 1...1, capabilities: [],
                limits: BackendLimits(imageSizeMax: 1 << 20, locationBits: 44, atomicWriteSize: 0), medium: .own,
                settings: settings, alternative: alternative,
                open: { (_) throws(StorageError) in throw .unsupported("only for its name") })
        }
        let registry = try BackendRegistry([
            descriptor("ram", [SettingSchema("data-size", .size(1...1 << 40), default: "1G", help: "")],
                Alternative(settings: ["file"], name: "ram-file")),
            descriptor("ram-file", [SettingSchema("file", .list, help: "")]),
        ])
        func parse(_ engine: String) throws(ConfigurationError) -> NodeConfiguration {
            try ConfigurationParser.parse(
                Array("namespace test {\n storage-engine \(engine)\n}".utf8), fileName: "a.conf", registry: registry,
                processors: 1)
        }
        #expect(try parse("ram").namespaces[0].storageEngine == "ram")
        #expect(try parse("ram {\n data-size 2G\n }").namespaces[0].storageEngine == "ram")
        let withFile = try parse("ram {\n file /a\n }")
        #expect(withFile.namespaces[0].storageEngine == "ram-file")
        #expect(withFile.values(namespace: "test").contains { $0 == ("storage-engine", "ram") })
        #expect(throws: ConfigurationError.self) { try parse("ram {\n file /a\n data-size 2G\n }") }
    }
}
