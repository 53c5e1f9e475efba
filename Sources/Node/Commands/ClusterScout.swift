internal import Bench
internal import Client

/// Finds the nodes of a cluster from some of them, and asks each what it says.
enum ClusterScout {
    /// What can be found from these addresses on. Blocks; a node that is silent costs 5 s.
    static func survey(_ seeds: [NodeAddress]) -> ClusterSurvey {
        var tend = Tend(namespace: "")
        var effects: [Tend.Effect] = []
        var silent: [String] = []
        tend.seed(seeds, &effects)
        while !effects.isEmpty {
            guard case .ask(let address, let commands) = effects.removeFirst() else { continue }
            do throws(BenchError) {
                tend.answered(address, try ClientSocket.info(address, commands), &effects)
            } catch {
                tend.failed(address)
                silent.append(error.message)
            }
        }
        var reports: [NodeReport] = []
        for node in tend.nodes {
            do throws(BenchError) {
                let answers = try ClientSocket.info(node.address, NodeReport.commands)
                if let report = NodeReport(node.address, answers) { reports.append(report) }
            } catch {
                silent.append(error.message)
            }
        }
        if reports.contains(where: { $0.remaining > 0 }) { askForWork(&reports) }
        return ClusterSurvey(nodes: reports, silent: silent)
    }

    /// What cannot be asked now is not shown.
    private static func askForWork(_ reports: inout [NodeReport]) {
        for number in reports.indices {
            guard let answers = try? ClientSocket.info(reports[number].address, [NodeReport.workCommand]) else { continue }
            reports[number].takeWork(answers.first?.value ?? "")
        }
    }
}
