internal import Base
package import Client

/// What a benchmark does.
package struct BenchSettings: Sendable {
    /// Whom it talks to.
    package enum Target: Sendable, Equatable {
        /// A cluster that speaks the client protocol.
        case cluster
        /// A server that answers a fixed number of bytes to each request, whatever it says.
        case echo(readAnswerBytes: Int, writeAnswerBytes: Int)
        /// redis-server: GET and SET.
        case redis
    }
    package var target = Target.cluster
    package var seeds: [NodeAddress] = []
    package var namespace = "test"
    package var set = "bench"
    /// Name of the one bin.
    package var bin = "v"
    package var keys = 1_000_000
    package var valueBytes = 100...100
    package var connections = 64
    package var threads = 1
    package var depth = 1
    package var readPercent = 100
    /// Records of one request, which is a batch of reads then; 0 for single requests.
    package var batchRows = 0
    package var isZipfian = false
    /// Operations that are due in each second, of all connections; nil for as many as are answered.
    package var rate: Double?
    package var seconds = 10.0
    package var warmUpSeconds = 0.5
    /// Write every key once, in order, instead of running for a time.
    package var isLoad = false
    /// Rounds over all keys of a load.
    package var rounds = 1
    package var seed: UInt64 = 1
    /// Processor of the first thread; the others follow. Nil for none.
    package var firstProcessor: Int?
    /// A process on this machine whose CPU time is reported per operation.
    package var serverProcess: Int32?
    package var isQuiet = false

    package init() {}
}

/// Why a benchmark ended without figures: one sentence.
package struct BenchError: Error, Sendable {
    package let message: String

    package init(message: String) { self.message = message }
}

/// What came out.
package struct BenchResult: Sendable {
    package var operations: UInt64 = 0
    package var seconds = 0.0
    package var errors: [UInt8: UInt64] = [:]
    package var percentiles: [(name: String, microseconds: Double)] = []
    /// Nanoseconds of CPU of the server process per operation.
    package var serverNanosecondsPerOperation: Double?
    /// Nanoseconds of CPU of this process per operation.
    package var ownNanosecondsPerOperation = 0.0

    package init() {}

    package var operationsPerSecond: Double { seconds > 0 ? Double(operations) / seconds : 0 }
}
