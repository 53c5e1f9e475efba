// What can be switched on to go wrong in a simulated device.
internal import Base

/// A way for a simulated device to fail. Each hits one operation, chosen when it is submitted.
public enum DeviceFault: String, CaseIterable, Sendable {
    /// Any operation, growth excepted, fails with EIO; a write may have stored some of its pieces.
    case failure
    /// A read fails with EIO.
    case readError
    /// A write fails with EIO and may have stored some of its pieces.
    case writeError
    /// A flush fails with EIO and makes nothing durable.
    case flushError
    /// One bit of what a read is going to find has turned over, and stays so.
    case bitRot
    /// A write is acknowledged, but was stored at another place: whole sectors away, within the device.
    case misdirectedWrite
    /// A write is acknowledged, but was never stored, not even if it is durable.
    case lostWrite
    /// A write or growth fails with ENOSPC; nothing of it was stored.
    case noSpace

    func hits(_ kind: OperationKind) -> Bool {
        switch self {
        case .failure: kind != .growth
        case .readError, .bitRot: kind == .read
        case .writeError, .misdirectedWrite, .lostWrite: kind == .write
        case .flushError: kind == .flush
        case .noSpace: kind == .write || kind == .growth
        }
    }
}

enum OperationKind { case read, write, flush, discard, growth }

/// Which faults are on, and how often each has fired.
struct FaultPlan {
    private struct Line {
        let fault: DeviceFault
        var probability = 0.0
        /// Operations from now that it hits, 1 for the next.
        var countdowns: [Int] = []
        var fired = 0
    }
    private var lines = DeviceFault.allCases.map { Line(fault: $0) }

    private func place(_ fault: DeviceFault) -> Int { lines.firstIndex { $0.fault == fault }! }

    mutating func set(_ fault: DeviceFault, probability: Double) { lines[place(fault)].probability = probability }

    mutating func add(_ fault: DeviceFault, operationsFromNow: Int) {
        precondition(operationsFromNow >= 1, "1 is the next operation")
        lines[place(fault)].countdowns.append(operationsFromNow)
    }

    mutating func clear() {
        for place in lines.indices {
            lines[place].probability = 0
            lines[place].countdowns = []
        }
    }

    func fired(_ fault: DeviceFault) -> Int { lines[place(fault)].fired }

    /// The fault of an operation of that kind, if it has one; the first of the list if several are due.
    mutating func draw(_ kind: OperationKind, _ random: inout SeededRandom) -> DeviceFault? {
        var drawn: Int?
        for place in lines.indices where lines[place].fault.hits(kind) {
            var isDue = false
            lines[place].countdowns = lines[place].countdowns.compactMap { count in
                isDue = isDue || count == 1
                return count == 1 ? nil : count - 1
            }
            let probability = lines[place].probability
            if probability > 0, Double.random(in: 0..<1, using: &random) < probability { isDue = true }
            if isDue, drawn == nil { drawn = place }
        }
        guard let drawn else { return nil }
        lines[drawn].fired += 1
        return lines[drawn].fault
    }
}
