internal import ArgumentParser
internal import Bench
internal import Client
internal import Glibc

/// `apus bench`.
struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Load a server, or a cluster, and measure it.",
        discussion: """
            A closed loop: every connection keeps --depth requests under way.

              apus bench load --keys 1000000 --value-size 100
              apus bench run --keys 1000000 --read-percent 80 --distribution zipfian --seconds 30
              apus bench scan --scans 4
            """,
        subcommands: [Load.self, Run.self, Scan.self])

    struct Load: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Write every key, in order.")
        @OptionGroup var common: BenchOptions
        @Option(help: "Times over all keys.")
        var rounds = 1

        func run() throws {
            var settings = try common.settings()
            settings.isLoad = true
            settings.readPercent = 0
            settings.rounds = max(rounds, 1)
            try common.runAndPrint(settings)
        }
    }

    struct Run: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Read and write keys of chance for a time.")
        @OptionGroup var common: BenchOptions
        @Option(help: "Share of reads.")
        var readPercent = 100
        @Option(help: "Reads of one request: batches of so many records. 0 for single requests.")
        var batch = 0
        @Option(help: "uniform or zipfian.")
        var distribution = "uniform"
        @Option(help: "Operations per second, of all connections; latencies count from when each was due. 0 for no limit.")
        var rate = 0.0
        @Option(help: "Seconds that are measured.")
        var seconds = 10.0
        @Option(help: "Seconds before that.")
        var warmUp = 0.5

        func validate() throws {
            guard (0...100).contains(readPercent) else { throw ValidationError("--read-percent is 0 to 100") }
            guard ["uniform", "zipfian"].contains(distribution) else {
                throw ValidationError("--distribution is uniform or zipfian")
            }
            guard (0...10_000).contains(batch), batch == 0 || readPercent == 100 && common.target == "cluster" else {
                throw ValidationError("--batch is 0 to 10000, and for reads of a cluster")
            }
            guard rate >= 0, rate.isFinite else { throw ValidationError("--rate must not be below 0") }
            guard seconds > 0, warmUp >= 0 else { throw ValidationError("--seconds must be above 0") }
        }

        func run() throws {
            var settings = try common.settings()
            settings.readPercent = readPercent
            settings.batchRows = batch
            settings.isZipfian = distribution == "zipfian"
            settings.rate = rate > 0 ? rate : nil
            settings.seconds = seconds
            settings.warmUpSeconds = warmUp
            try common.runAndPrint(settings)
        }
    }
}

extension BenchCommand {
    struct Scan: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Scan a namespace of one node, and count the records.")
        @Option(name: .shortAndLong, help: "Address of the node.")
        var host = "127.0.0.1:3000"
        @Option(help: "Namespace.")
        var namespace = "test"
        @Option(help: "Set; without it all.")
        var set = ""
        @Option(help: "A bin to select; may be repeated. Without it all.")
        var bin: [String] = []
        @Flag(help: "Ask for metadata only.")
        var metadataOnly = false
        @Option(help: "Scans at a time, each on a connection of its own.")
        var scans = 1
        @Option(help: "How often each connection scans.")
        var rounds = 1
        @Option(help: "Records per second of each scan; 0 for no limit.")
        var rate: UInt32 = 0
        @Option(help: "A filter expression as hexadecimal msgpack.")
        var filter = ""
        @Option(help: "Process id of a server on this machine: its CPU time per record is reported.")
        var serverPid: Int32?
        @Flag(help: "Print the result as JSON.")
        var json = false

        func run() throws {
            guard let address = NodeAddress(host) else { throw ValidationError("'\(host)' is not host:port") }
            guard (1...1000).contains(scans), rounds > 0 else {
                throw ValidationError("--scans is 1 to 1000, --rounds above 0")
            }
            var settings = ScanSettings(address: address)
            settings.namespace = namespace
            settings.set = set
            settings.bins = bin
            settings.isMetadataOnly = metadataOnly
            settings.scans = scans
            settings.rounds = rounds
            settings.recordsPerSecond = rate
            settings.filter = try bytes(filter)
            settings.serverProcess = serverPid
            try printResult(json: json) { () throws(BenchError) in try Bench.scan(settings) }
        }

        private func bytes(_ text: String) throws -> [UInt8] {
            let digits = Array(text)
            return try stride(from: 0, to: digits.count, by: 2).map { place in
                guard place + 1 < digits.count, let byte = UInt8(String(digits[place...(place + 1)]), radix: 16) else {
                    throw ValidationError("--filter is an even number of hexadecimal digits")
                }
                return byte
            }
        }
    }
}

/// Runs a benchmark and prints what came out; errors of the server end the command with 1, others with 2.
private func printResult(json: Bool, _ body: () throws(BenchError) -> BenchResult) throws {
    let result: BenchResult
    do throws(BenchError) {
        result = try body()
    } catch {
        printError(error.message)
        throw ExitCode(2)
    }
    print(json ? BenchReport.json(result) : BenchReport.text(result))
    guard result.errors.isEmpty else { throw ExitCode(1) }
}

/// Options of load and run.
struct BenchOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: "Addresses of one or more nodes, separated by commas.")
    var hosts = "127.0.0.1:3000"
    @Option(help: "Namespace.")
    var namespace = "test"
    @Option(help: "Set; empty for none.")
    var set = "bench"
    @Option(help: "Name of the one bin, 1 to 15 bytes.")
    var bin = "v"
    @Option(help: "How many keys.")
    var keys = 1_000_000
    @Option(help: "Bytes of the one bin's value: a number, or a range as in 50-150.")
    var valueSize = "100"
    @Option(help: "Connections.")
    var connections = 64
    @Option(help: "Threads of this generator.")
    var threads = 1
    @Option(help: "Requests under way per connection.")
    var depth = 1
    @Option(help: "Seed of the keys' order.")
    var seed: UInt64 = 1
    @Option(help: "Pin the threads to processors from this one on.")
    var processor: Int?
    @Option(help: "Process id of a server on this machine: its CPU time per operation is reported.")
    var serverPid: Int32?
    @Option(help: "cluster, redis, or echo:R:W (a server that answers R bytes to a read and W to a write).")
    var target = "cluster"
    @Flag(help: "Print the result as JSON, and no progress.")
    var json = false

    func settings() throws -> BenchSettings {
        var settings = BenchSettings()
        settings.seeds = try hosts.split(separator: ",").map { text in
            guard let address = NodeAddress(String(text)) else { throw ValidationError("'\(text)' is not host:port") }
            return address
        }
        let sizes = valueSize.split(separator: "-").compactMap { Int($0) }
        guard let least = sizes.first, let most = sizes.last, 1 <= least, least <= most, most <= 8 << 20 else {
            throw ValidationError("--value-size is a number of bytes up to 8388608, or a range as in 50-150")
        }
        guard (1...100_000_000).contains(keys), (1...60_000).contains(connections), (1...64).contains(threads),
            (1...1024).contains(depth), connections >= threads
        else {
            throw ValidationError(
                "--keys 1 to 100000000, --connections 1 to 60000, --threads 1 to 64 and not above connections,"
                    + " --depth 1 to 1024")
        }
        guard (1...15).contains(bin.utf8.count) else { throw ValidationError("--bin is a name of 1 to 15 bytes") }
        settings.bin = bin
        settings.target = try parsedTarget()
        settings.namespace = namespace
        settings.set = set
        settings.keys = keys
        settings.valueBytes = least...most
        settings.connections = connections
        settings.threads = threads
        settings.depth = depth
        settings.seed = seed
        settings.firstProcessor = processor
        settings.serverProcess = serverPid
        settings.isQuiet = json
        return settings
    }

    private func parsedTarget() throws -> BenchSettings.Target {
        if target == "cluster" { return .cluster }
        if target == "redis" { return .redis }
        let parts = target.split(separator: ":")
        guard parts.count == 3, parts[0] == "echo", let read = Int(parts[1]), let write = Int(parts[2]), read > 0, write > 0
        else { throw ValidationError("--target is cluster, redis or echo:R:W") }
        return .echo(readAnswerBytes: read, writeAnswerBytes: write)
    }

    func runAndPrint(_ settings: BenchSettings) throws {
        try printResult(json: json) { () throws(BenchError) in try Bench.run(settings) }
    }
}

/// A message for the person in front of the terminal.
func printError(_ message: String) {
    let line = "apus: \(message)\n"
    _ = write(STDERR_FILENO, line, line.utf8.count)
}
