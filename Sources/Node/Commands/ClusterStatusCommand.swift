internal import ArgumentParser
internal import Client
internal import Glibc

/// `apus cluster status`.
struct ClusterStatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Draw a cluster: nodes, racks, view, masters and copies per node, problems.",
        discussion: """
            One node is enough: it names the others. They are asked one after the other, so a view that changes meanwhile
            looks torn: what is not whole is asked a second time, half a second later.

            The cluster is whole if all nodes that were named answer, are in one view with one map, every partition has one
            master, and no node is heard that is not in the view, or claims the id of another. Copies that wait to be filled,
            and other problems that nodes name, do not count.

            Exit codes: 0 whole, 1 not whole, 2 nothing answered.
            """)

    @OptionGroup var target: ClusterTarget

    func run() throws {
        do throws(ClusterCommandError) {
            let addresses = try target.addresses()
            var survey = ClusterScout.survey(addresses)
            if !survey.nodes.isEmpty, !survey.faults.isEmpty {
                usleep(500_000)
                survey = ClusterScout.survey(addresses)
            }
            guard !survey.nodes.isEmpty else {
                for problem in survey.silent { printError(problem) }
                printError("no node answers: name one that runs, as in apus cluster status 127.0.0.1:3000")
                throw ClusterCommandError("")
            }
            let picture = ClusterPicture(
                survey: survey, isColoured: ClusterPicture.isTerminal, width: ClusterPicture.terminalWidth)
            for line in picture.lines { print(line) }
            if survey.faults.isEmpty { return }
        } catch {
            if !error.message.isEmpty { printError(error.message) }
            throw ExitCode(2)
        }
        throw ExitCode(1)
    }
}
