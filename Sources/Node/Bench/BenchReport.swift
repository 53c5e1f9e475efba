/// Results as text and as JSON.
package enum BenchReport {
    /// For a person.
    package static func text(_ result: BenchResult) -> String {
        var lines = [
            "\(result.operations) operations in \(rounded(result.seconds, 2)) s:"
                + " \(UInt64(result.operationsPerSecond)) per second"
        ]
        let latencies = result.percentiles.map { "\($0.name) \(rounded($0.microseconds, 1))" }
        lines.append("latency us: \(latencies.joined(separator: "  "))")
        if let server = result.serverNanosecondsPerOperation {
            lines.append("server CPU per operation: \(rounded(server / 1000, 3)) us")
        }
        lines.append("generator CPU per operation: \(rounded(result.ownNanosecondsPerOperation / 1000, 3)) us")
        for (code, count) in result.errors.sorted(by: { $0.key < $1.key }) {
            lines.append("ERRORS: \(count) answers with result code \(code)")
        }
        return lines.joined(separator: "\n")
    }

    /// For a program; one line.
    package static func json(_ result: BenchResult) -> String {
        var fields = [
            "\"operations\": \(result.operations)", "\"seconds\": \(rounded(result.seconds, 6))",
            "\"operations_per_second\": \(rounded(result.operationsPerSecond, 1))",
            "\"generator_cpu_ns\": \(rounded(result.ownNanosecondsPerOperation, 1))",
        ]
        if let server = result.serverNanosecondsPerOperation { fields.append("\"server_cpu_ns\": \(rounded(server, 1))") }
        let latencies = result.percentiles.map { "\"\($0.name)\": \(rounded($0.microseconds, 3))" }
        fields.append("\"latency_us\": {\(latencies.joined(separator: ", "))}")
        let errors = result.errors.sorted { $0.key < $1.key }.map { "\"\($0.key)\": \($0.value)" }
        fields.append("\"errors\": {\(errors.joined(separator: ", "))}")
        return "{\(fields.joined(separator: ", "))}"
    }

    private static func rounded(_ value: Double, _ digits: Int) -> String {
        let scale = (0..<digits).reduce(1.0) { scale, _ in scale * 10 }
        return "\((value * scale).rounded() / scale)"
    }
}
