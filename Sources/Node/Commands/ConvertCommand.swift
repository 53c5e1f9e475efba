internal import ArgumentParser
internal import Glibc
internal import Node

/// `apus convert`.
struct ConvertCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "convert",
        abstract: "Copy a stopped namespace from one storage backend to another, and compare.",
        discussion: """
            Both files are ordinary configurations of a node, with its plugins: the first has the namespace as it is, the
            second as it is to be. Stop the node, convert, start it with the second file.

              apus convert users --from old.conf --to new.conf

            Every record is copied as it is, with its generation, times, set and key, and then read back and compared.
            Records that have expired are left out. The records of the source stay as they are; opening it is one more start
            on it: its session number rises, and what a killed node had left in shared memory is written out. The target must
            be empty; if a conversion was interrupted, empty it (`apus wipe` for a device or file, or remove the directory)
            and begin again.

            Exit codes: 0 the target serves what the source did; 1 it does not, the message says why and what to do; 2 a
            configuration has problems.
            """)

    @Argument(help: "Name of the namespace.")
    var namespace: String

    @Option(help: ArgumentHelp("Configuration of the namespace as it is now.", valueName: "file"))
    var from: String

    @Option(help: ArgumentHelp("Configuration of the namespace as it is to be.", valueName: "file"))
    var to: String

    @Flag(help: "Do not ask.")
    var yes = false

    func run() throws {
        let code = Node.convert(namespace, from: from, to: to, backends: Apus.backends) { question in
            print(question, terminator: "")
            guard !yes else {
                fflush(nil)
                return true
            }
            print("Type 'convert' to go on: ", terminator: "")
            fflush(nil)
            return readLine() == "convert"
        }
        guard code == Node.ExitCode.stopped else { throw ExitCode(code) }
    }
}
