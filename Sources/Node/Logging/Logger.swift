// The log of one node: lines to sinks. A line is one write, so lines of several threads do not mix. Levels
// are single bytes that any thread reads while another changes them.
internal import Base
internal import CBase
internal import Glibc

/// Why the log cannot be opened: one sentence for the operator.
package struct LogError: Error, CustomStringConvertible, Sendable {
    package let description: String
}

/// Writes lines. Any thread.
package final class Logger: Sendable {
    private struct Sink: @unchecked Sendable {
        let name: String
        let path: String?
        let descriptor: Int32
        let levels: UnsafeMutablePointer<UInt32>
    }
    private let sinks: [Sink]

    /// Opens the sinks; none configured means the console at `info`.
    package init(sinks settings: [LogSinkSettings]) throws(LogError) {
        let console = LogSinkSettings(target: .console, levels: [.init(context: nil, level: .info)])
        var sinks: [Sink] = []
        for one in settings.isEmpty ? [console] : settings { sinks.append(try Logger.open(one)) }
        self.sinks = sinks
    }

    deinit {
        for sink in sinks {
            sink.levels.deallocate()
            if sink.path != nil { close(sink.descriptor) }
        }
    }

    private static func open(_ settings: LogSinkSettings) throws(LogError) -> Sink {
        let levels = UnsafeMutablePointer<UInt32>.allocate(capacity: LogContext.allCases.count)
        levels.initialize(repeating: UInt32(LogLevel.critical.rawValue), count: LogContext.allCases.count)
        for rule in settings.levels {
            for (number, context) in LogContext.allCases.enumerated() where rule.context == nil || rule.context == context {
                levels[number] = UInt32(rule.level.rawValue)
            }
        }
        switch settings.target {
        case .console: return Sink(name: "stderr", path: nil, descriptor: STDERR_FILENO, levels: levels)
        case .file(let path):
            let descriptor = openFile(path)
            guard descriptor >= 0 else {
                let reason = String(cString: strerror(errno))
                levels.deallocate()
                throw LogError(
                    description: "cannot open the log file \(path): \(reason); make its directory and give this user"
                        + " write access, or change the logging section")
            }
            return Sink(name: path, path: path, descriptor: descriptor, levels: levels)
        }
    }

    private static func openFile(_ path: String) -> Int32 {
        Glibc.open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
    }

    // ---- Lines ----

    /// Something an operator may want to know.
    package func info(_ context: LogContext, _ message: @autoclosure () -> String) {
        write(.info, context, message)
    }

    /// Something an operator should look at.
    package func warning(_ context: LogContext, _ message: @autoclosure () -> String) {
        write(.warning, context, message)
    }

    private func write(_ level: LogLevel, _ context: LogContext, _ message: () -> String) {
        let number = Logger.numbers[context] ?? 0
        guard sinks.contains(where: { apus_load_relaxed_u32($0.levels + number) <= UInt32(level.rawValue) }) else {
            return
        }
        var line = "\(Logger.timestamp()): \(level.name) (\(context.rawValue)): \(message())\n"
        line.withUTF8 { bytes in
            for sink in sinks where apus_load_relaxed_u32(sink.levels + number) <= UInt32(level.rawValue) {
                // A full disk must not stop the node: the line is lost.
                _ = Glibc.write(sink.descriptor, bytes.baseAddress, bytes.count)
            }
        }
    }

    private static let numbers = Dictionary(
        uniqueKeysWithValues: LogContext.allCases.enumerated().map { ($0.element, $0.offset) })
    private static let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    private static func timestamp() -> String {
        var now = time(nil)
        var parts = tm()
        gmtime_r(&now, &parts)
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(months[Int(parts.tm_mon)]) \(two(parts.tm_mday)) \(parts.tm_year + 1900)"
            + " \(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)) GMT"
    }

    // ---- Operator ----

    /// The sinks by number, as `logs` lists them.
    package var sinkNames: [String] { sinks.map(\.name) }

    /// The level of every context of a sink, in the original's order.
    package func levels(sink: Int) -> [(context: String, level: String)] {
        LogContext.allCases.enumerated().map { number, context in
            let level = LogLevel(rawValue: UInt8(apus_load_relaxed_u32(sinks[sink].levels + number)))
            return (context.rawValue, level?.name ?? "")
        }
    }

    /// Changes the level of a context, or of `any`. False: no such context or level.
    package func setLevel(sink: Int, context: String, level: String) -> Bool {
        guard let level = LogLevel(name: level) else { return false }
        guard context == "any" || LogContext(rawValue: context) != nil else { return false }
        for (number, one) in LogContext.allCases.enumerated() where context == "any" || one.rawValue == context {
            apus_store_release_u32(sinks[sink].levels + number, UInt32(level.rawValue))
        }
        return true
    }

    /// Opens the files again under their names, after rotation. A file that cannot be opened goes on as it
    /// was.
    package func reopen() {
        for sink in sinks {
            guard let path = sink.path else { continue }
            let descriptor = Logger.openFile(path)
            guard descriptor >= 0 else {
                warning(.as, "cannot open the log file \(path) again: \(String(cString: strerror(errno)))")
                continue
            }
            _ = dup2(descriptor, sink.descriptor)
            close(descriptor)
        }
        info(.as, "log files opened again")
    }

    /// Where a crash is written to: the first file, else the console.
    package var crashDescriptor: Int32 { sinks.first { $0.path != nil }?.descriptor ?? STDERR_FILENO }
}
