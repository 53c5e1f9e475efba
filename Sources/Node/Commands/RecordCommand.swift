internal import ArgumentParser
internal import Bench
internal import Client

/// `apus record`.
struct RecordCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "record",
        abstract: "Say where a record lies: partition, device, block, offset, size, generation, times.",
        discussion: """
            Nothing is read but the node's index. Times are Unix seconds.

              apus record ssd users alice
              apus record ssd users 4711 --integer
              apus record ssd '' 4711 --integer        (a record of no set)
            """)

    @Argument(help: "Namespace.")
    var namespace: String

    @Argument(help: "Set; '' for none.")
    var set: String

    @Argument(help: "Key, as text unless --integer or --digest is given.")
    var key: String

    @Option(help: ArgumentHelp("Node to ask.", valueName: "host:port"))
    var host = "127.0.0.1:3000"

    @Flag(help: "The key is an integer.")
    var integer = false

    @Flag(help: "The key is a digest: 40 hexadecimal digits.")
    var digest = false

    func validate() throws {
        if integer, digest { throw ValidationError("--integer and --digest exclude each other") }
        if integer, Int64(key) == nil { throw ValidationError("'\(key)' is no integer of 64 bits") }
        if NodeAddress(host) == nil { throw ValidationError("'\(host)' is not host:port") }
    }

    func run() throws {
        guard let target = NodeAddress(host) else { return }
        do {
            let command = "record:namespace=\(namespace);digest=\(try digestText)"
            let answer = try ClientSocket.info(target, [command]).first?.value ?? ""
            guard !answer.hasPrefix("ERROR") else {
                printError(answer)
                throw ExitCode(1)
            }
            let pairs = answer.split(separator: ";").map { $0.split(separator: "=", maxSplits: 1) }
            let width = pairs.map { $0[0].count }.max() ?? 0
            for pair in pairs {
                let gap = String(repeating: " ", count: width - pair[0].count + 2)
                print(pair[0] + gap + (pair.count > 1 ? pair[1] : ""))
            }
        } catch let error as BenchError {
            printError(error.message)
            throw ExitCode(2)
        }
    }

    private var digestText: String {
        get throws {
            if digest { return key }
            guard let hasher = DigestHasher() else { throw BenchError(message: "this OpenSSL has no RIPEMD-160") }
            if integer, let number = Int64(key) { return "\(hasher.digest(set: set, key: number))" }
            return "\(hasher.digest(set: set, key: key))"
        }
    }
}
