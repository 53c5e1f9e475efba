internal import ArgumentParser
internal import Bench
internal import Client

/// `apus cluster`.
struct ClusterCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cluster",
        abstract: "Start a cluster on this machine; look at any cluster.",
        discussion: """
            Three nodes on two racks, what they look like, and why a node has a partition:

              apus cluster up --nodes 3 --racks 2
              apus cluster status
              apus cluster explain 7
            """,
        subcommands: [ClusterUpCommand.self, ClusterDownCommand.self, ClusterStatusCommand.self, ClusterExplainCommand.self])
}

/// Why a cluster command has failed: what happened, and what to do.
struct ClusterCommandError: Error {
    let message: String
    init(_ message: String) { self.message = message }
}

/// Where a cluster of this machine lives.
struct ClusterPlace: ParsableArguments {
    @Option(help: ArgumentHelp("Directory of the cluster that 'apus cluster up' has made.", valueName: "dir"))
    var directory = "./var/cluster"
}

/// Which cluster is meant: by the address of a node, or by the directory of `apus cluster up`.
struct ClusterTarget: ParsableArguments {
    @Argument(help: ArgumentHelp(
        "Any node of the cluster, as in 127.0.0.1:3000. Without it: the nodes of --directory, or 127.0.0.1:3000 if there is"
            + " no such directory.", valueName: "host:port"))
    var address: String?

    @OptionGroup var place: ClusterPlace

    func validate() throws {
        if let address, NodeAddress(address) == nil { throw ValidationError("'\(address)' is not host:port") }
    }

    /// Addresses to begin with; one at least.
    func addresses() throws(ClusterCommandError) -> [NodeAddress] {
        if let address, let one = NodeAddress(address) { return [one] }
        if let layout = try ClusterLayout.load(place.directory) { return layout.nodes.map(\.address) }
        return [NodeAddress(host: "127.0.0.1", port: 3000)]
    }
}

/// `apus cluster explain`.
struct ClusterExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Say why nodes have a partition: its list, its columns, its versions, who serves it, what it waits for.",
        discussion: """
            The node that is asked answers from its own map; all nodes of a view have the same.

              apus cluster explain 7
              apus cluster explain 7 127.0.0.1:3000 --namespace ssd
            """)

    @Argument(help: "Number of the partition, 0 to 4095. 'apus record' says which one a record is in.")
    var partition: Int

    @Option(help: "Namespace.")
    var namespace = "test"

    @OptionGroup var target: ClusterTarget

    func validate() throws {
        guard (0..<4096).contains(partition) else {
            throw ValidationError("there are partitions 0 to 4095, none is \(partition)")
        }
    }

    func run() throws {
        do throws(ClusterCommandError) {
            try explain()
        } catch {
            printError(error.message)
            throw ExitCode(1)
        }
    }

    /// Asks one after the other until a node answers.
    private func explain() throws(ClusterCommandError) {
        var problems: [String] = []
        for address in try target.addresses() {
            do throws(BenchError) {
                let command = "partition-explain:namespace=\(namespace);partition=\(partition)"
                let answer = try ClientSocket.info(address, [command]).first?.value ?? ""
                guard !answer.hasPrefix("ERROR") else {
                    problems.append("\(address): \(answer)")
                    continue
                }
                return print(answer.split(separator: ";").joined(separator: "\n"))
            } catch {
                problems.append(error.message)
            }
        }
        throw ClusterCommandError(problems.joined(separator: "\napus: "))
    }
}
