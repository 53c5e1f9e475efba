import Base
import Configuration
import Memory
import Storage
import TestSupport
import Testing

/// Settings that change at run time: what is found where, what is refused, what the new configuration says.
@Suite struct SettingChangeTests {
    private let registry = try! BackendRegistry([Memory.descriptor])

    private func parse(_ text: String) throws(ConfigurationError) -> NodeConfiguration {
        try ConfigurationParser.parse(Array(text.utf8), fileName: "a.conf", registry: registry, processors: 3)
    }

    private let text = """
        namespace one { nsup-period 60
          default-ttl 10
          storage-engine memory { data-size 1G
          }
          set a { default-ttl 5
            stop-writes-size 1K
          }
        }
        namespace two { storage-engine memory
        }
        """

    private func refusal(_ place: SettingPlace, _ name: String, _ value: String) throws -> String {
        do throws(SettingRefusal) {
            _ = try parseAgain().changing(place, name, to: value)
            return ""
        } catch { return error.message }
    }

    private func parseAgain() -> NodeConfiguration { try! parse(text) }

    private func value(_ configuration: NodeConfiguration, _ namespace: String, _ name: String) -> String? {
        configuration.values(namespace: namespace).first { $0.0 == name }?.1
    }

    @Test func oneNamespaceChanges() throws {
        let before = parseAgain()
        let change = try before.changing(.namespace("one"), "max-record-size", to: "64K")
        #expect(change.name == "max-record-size" && change.old == "1048576" && change.new == "65536" && change.block == "")
        #expect(change.configuration.namespaces[0].maxRecordSize == 65536)
        #expect(change.configuration.namespaces[1].maxRecordSize == 1 << 20 && before.namespaces[0].maxRecordSize == 1 << 20)
        #expect(value(change.configuration, "one", "max-record-size") == "65536")
        let again = try change.configuration.changing(.namespace("one"), "max-record-size", to: "1M")
        #expect(again.old == "65536" && again.configuration.namespaces[0].maxRecordSize == 1 << 20)
        #expect(again.configuration.service.serviceThreads == 3)
    }

    @Test func storageSettingsWithTheirBlockAndWithout() throws {
        for name in ["stop-writes-used-pct", "storage-engine.stop-writes-used-pct"] {
            for namespace in ["one", "two"] {
                let change = try parseAgain().changing(.namespace(namespace), name, to: "55")
                #expect(change.name == "storage-engine.stop-writes-used-pct" && change.block == "storage-engine")
                #expect(value(change.configuration, namespace, "storage-engine.stop-writes-used-pct") == "55")
            }
        }
        let size = try parseAgain().changing(.namespace("one"), "defrag-lwm-pct", to: "55").configuration.namespaces[0]
        #expect(size.storageSettings.number("data-size") == 1 << 30 && size.storageSettings.number("defrag-lwm-pct") == 55)
    }

    @Test func serviceWithoutABlockInTheFile() throws {
        let change = try parseAgain().changing(.service, "ticker-interval", to: "1m")
        #expect(change.old == "10" && change.configuration.service.tickerInterval == 60)
        #expect(change.configuration.values(context: .service).contains { $0 == ("ticker-interval", "60") })
    }

    @Test func refusals() throws {
        #expect(try refusal(.service, "ticker-intervl", "1").contains("did you mean 'ticker-interval'?"))
        #expect(try refusal(.service, "service-threads", "1").contains("cannot change while the node runs"))
        #expect(try refusal(.service, "vault-url", "x").contains("no effect yet"))
        #expect(try refusal(.service, "query-max-done", "10001").contains("from 0 to 10000"))
        #expect(try refusal(.namespace("one"), "data-size", "2G").contains("cannot change while the node runs"))
        #expect(try refusal(.namespace("one"), "compression", "lz4").contains("no effect yet"))
        #expect(try refusal(.namespace("one"), "nsup-period", "0").contains("default-ttl needs nsup-period"))
        #expect(try refusal(.namespace("one"), "index-type.mounts-budget", "2G").contains("no setting"))
        #expect(try refusal(.network, "port", "1").contains("no setting"))
        #expect(try refusal(.network, "service.port", "1").contains("cannot change"))
    }

    /// What nobody could connect with, or reach others by.
    @Test func bounds() throws {
        for text in ["0", "1", "9"] { #expect(try refusal(.service, "proto-fd-max", text).contains("from 10 to")) }
        #expect(try refusal(.service, "transaction-max-ms", "0").contains("from 1 to"))
        // Nodes of another name do not know this one: the name belongs to a start.
        #expect(try refusal(.service, "cluster-name", "green").contains("edit the configuration file and restart"))
    }

    @Test func settingsOfSets() throws {
        let sets = parseAgain().namespaces[0].sets
        #expect(sets.count == 1 && sets[0].name == "a")
        #expect(sets[0].values.map(\.value) == ["5", "1024"] && parseAgain().namespaces[1].sets.isEmpty)
        #expect(try NodeConfiguration.setValue("stop-writes-size", "1M") == "1048576")
        #expect(try NodeConfiguration.setValue("default-read-touch-ttl-pct", "-1") == "-1")
        #expect(throws: SettingRefusal.self) { try NodeConfiguration.setValue("default-read-touch-ttl-pct", "101") }
        #expect(throws: SettingRefusal.self) { try NodeConfiguration.setValue("default-ttl", "11y") }
        #expect(throws: SettingRefusal.self) { try NodeConfiguration.setValue("ttl", "1") }
        #expect(throws: ConfigurationError.self) {
            try parse("namespace one { storage-engine memory\n set a { default-read-touch-ttl-pct 101\n}\n}")
        }
    }

    /// Whatever is live can be set to its default and comes out as it was.
    @Test func everyLiveSettingTakesItsDefault() throws {
        var configuration = parseAgain()
        for (name, text) in configuration.values(namespace: "two") where !text.isEmpty {
            do throws(SettingRefusal) {
                configuration = try configuration.changing(.namespace("two"), name, to: text).configuration
            } catch {
                #expect(error.message.contains("no effect yet") || error.message.contains("cannot change")
                    || name == "storage-engine", "\(name): \(error.message)")
            }
        }
        #expect(configuration.values(namespace: "two").map(\.1) == parseAgain().values(namespace: "two").map(\.1))
    }
}
