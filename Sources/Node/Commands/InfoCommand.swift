internal import ArgumentParser
internal import Bench
internal import Client

/// `apus info`.
struct InfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info",
        abstract: "Ask a node info commands and print the answers.",
        discussion: """
            One command: only its answer is printed. Several: each on a line with its name, separated by a tab.

              apus info 127.0.0.1:3000 status
              apus info 127.0.0.1:3000 namespaces namespace/test 'get-config:context=service'
            """)

    @Argument(help: "Host and port, as in 127.0.0.1:3000 or [::1]:3000.")
    var address: String

    @Argument(help: "Info commands; 'help' lists what the node knows.")
    var commands: [String]

    @Flag(name: .shortAndLong, help: "Print each value of a list on a line of its own.")
    var lines = false

    func run() throws {
        guard let target = NodeAddress(address) else {
            throw ValidationError("'\(address)' is not host:port")
        }
        do {
            let answers = try ClientSocket.info(target, commands)
            for (command, value) in answers {
                let text = lines ? value.split(separator: ";").joined(separator: "\n") : value
                print(answers.count == 1 ? text : "\(command)\t\(text)")
            }
            if answers.contains(where: { $0.value.hasPrefix("ERROR") || $0.value.hasPrefix("FAIL") }) { throw ExitCode(1) }
        } catch let error as BenchError {
            printError(error.message)
            throw ExitCode(2)
        }
    }
}
