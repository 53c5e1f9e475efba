import Base
import Client
import Testing
import Wire

@Suite struct ClusterSurveyTests {
    /// A node that serves the partitions in `masters` and has copies of those in `copies`.
    private func node(
        _ id: String, masters: Range<Int>, copies: Range<Int> = 0..<0, statistics: [String: String] = [:],
        problems: String = ""
    ) throws -> NodeReport {
        let all = [
            "cluster_key": "AB", "cluster_size": "2", "cluster_map_hash": "12", "cluster_integrity": "true",
            "cluster_is_member": "true", "cluster_waiting_for": "null",
        ].merging(statistics) { _, new in new }
        let text = all.map { "\($0.key)=\($0.value)" }.joined(separator: ";")
        return try #require(NodeReport(NodeAddress(host: "10.0.0.1", port: 3000), [
            ("node", id), ("build", "8.1"), ("cluster-name", "null"), ("statistics", text), ("rack-ids", "one:7;two:8"),
            ("replicas", "one:0,2,\(bitmap(masters)),\(bitmap(copies))"), ("cluster-problems", problems),
        ]))
    }

    private func bitmap(_ partitions: Range<Int>) -> String {
        var bits = [UInt8](repeating: 0, count: 512)
        for partition in partitions { bits[partition >> 3] |= 0x80 >> UInt8(partition & 7) }
        return Base64.encode(bits)
    }

    private func faults(_ nodes: NodeReport..., silent: [String] = []) -> [String] {
        ClusterSurvey(nodes: nodes, silent: silent).faults
    }

    // ---- One node ----

    @Test func readsWhatANodeSays() throws {
        let one = try node("A1", masters: 0..<10, copies: 10..<13, problems: "this is wrong;that is wrong")
        #expect(one.namespaces.map(\.name) == ["one"] && one.namespaces[0].rack == "7")
        #expect(one.namespaces[0].masterCount == 10 && one.namespaces[0].copyCount == 3)
        #expect(one.clusterName.isEmpty && one.problems == ["this is wrong", "that is wrong"])
        #expect(one.isMember && one.viewKey == "AB" && one.statistic("nothing").isEmpty)
    }

    @Test func whatIsNoNodeGivesNoReport() {
        #expect(NodeReport(NodeAddress(host: "10.0.0.1", port: 3000), []) == nil)
        #expect(NodeReport(NodeAddress(host: "10.0.0.1", port: 3000), [("node", "ERROR:4:what")]) == nil)
    }

    @Test func damagedBitmapsAreLeftOut() {
        let good = bitmap(0..<1)
        #expect(PartitionMap.columns("one:0,1,\(good);two:0,2,\(good),AAAA;three:0,1;:;four").map(\.namespace) == ["one"])
    }

    @Test func countsTheWorkOfPartitionsItServes() throws {
        var one = try node("A1", masters: 0..<2)
        one.takeWork("namespace:partition:n_dupl:working_master:emigrates;one:0:1:A1:2;one:1:4:A2:8;two:0:1:A1:1;one:2:16;"
            + "one:3:1:A1:1")
        #expect(one.namespaces[0].duplicateCount == 2 && one.namespaces[0].fillCount == 3)
        one.takeWork("ERROR:4:unknown")
        #expect(one.namespaces[0].duplicateCount == 2)
    }

    // ---- All of them ----

    @Test func aWholeClusterHasNoFaults() throws {
        let nodes = [try node("A10", masters: 0..<2048), try node("B1", masters: 2048..<4096)]
        let survey = ClusterSurvey(nodes: nodes, silent: [])
        #expect(survey.faults.isEmpty)
        #expect(survey.nodes.map(\.id) == ["B1", "A10"], "ids are numbers")
        #expect(survey.namespaces == ["one"] && survey.ownership("one").without == 0 && survey.ownership("one").several == 0)
    }

    @Test func everyFaultIsNamed() throws {
        let first = try node("A1", masters: 0..<2048)
        let second = try node("A2", masters: 2048..<4096)
        #expect(faults(first, second, silent: ["10.0.0.3 is silent"]) == ["10.0.0.3 is silent"])
        #expect(faults(first, try node("A2", masters: 2047..<4095)) == [
            "namespace one: 1 partitions without a master", "namespace one: 1 partitions with more than one master",
        ])
        #expect(faults(try node("A1", masters: 0..<4096)) == ["the view has 2 members, 1 were found: A1"])
        let other = ["cluster_key": "CD", "cluster_size": "1"]
        let apart = faults(first, try node("A2", masters: 2048..<4096, statistics: other))
        #expect(apart == [
            "not all nodes are in one view: A1 in AB, of 2 members", "not all nodes are in one view: A2 in CD, of 1 members",
        ])
        let unequal = faults(first, try node("A2", masters: 2048..<4096, statistics: ["cluster_map_hash": "13"]))
        #expect(unequal == ["the members of view AB have different maps: A1, A2"])
        let torn = faults(first, try node("A2", masters: 2048..<4096, statistics: ["cluster_integrity": "false"]))
        #expect(torn == [
            "A2 says cluster_integrity false: it does not hear from all members that they are in its view"
        ])
        let orphan = ["cluster_is_member": "false", "cluster_waiting_for": "A3,A4"]
        #expect(faults(first, second, try node("A5", masters: 0..<0, statistics: orphan)) == [
            "A5 belongs to no view: it waits for A3,A4"
        ])
        let reason = "this node belongs to no view: there are 1 nodes"
        #expect(faults(first, second, try node("A5", masters: 0..<0, statistics: orphan, problems: "else;" + reason)) == [
            "A5 belongs to no view: there are 1 nodes"
        ])
    }

    /// Members tell of members only: who is outside is found by nobody.
    @Test func nodesThatAreNotInTheViewMakeItLessWhole() throws {
        let first = try node("A1", masters: 0..<2048, statistics: ["cluster_nodes_outside": "A3"], problems: "A3 is bad")
        let second = try node("A2", masters: 2048..<4096, statistics: ["cluster_nodes_outside": "A3"])
        #expect(faults(first, second) == ["A3 is there, and not in the view: A1, A2 say why"])
        #expect(ClusterSurvey(nodes: [first, second], silent: []).hasProblems)
        let twice = try node("A2", masters: 2048..<4096, statistics: ["cluster_duplicate_nodes": "A4"])
        #expect(faults(try node("A1", masters: 0..<2048), twice) == ["two nodes claim the id A4"])
        #expect(!ClusterSurvey(nodes: [twice], silent: []).hasProblems)
    }
}
