import Base
import Configuration
import Logging
import Memory
import Storage
import TestSupport
import Testing

@Suite struct ConfigurationTests {
    private let registry = BackendRegistry([Memory.descriptor])

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
        #expect(configuration.notes.contains { $0.contains("a.conf:24") && $0.contains("'heartbeat'") })
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
        let configuration = try parse(small + "service {\n batch-index-threads 4\n}\nsecurity {\n}\n")
        #expect(configuration.notes.contains("a.conf:5: 'batch-index-threads' is known but has no effect yet"))
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
}
