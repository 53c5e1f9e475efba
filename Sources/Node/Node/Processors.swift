internal import CReactor
internal import Configuration
internal import Files

/// The processors of this machine.
enum Processors {
    private static let numbersMax = 4096

    /// Those this process may use; at least one.
    static var allowed: [Int] {
        var numbers = [Int32](repeating: 0, count: numbersMax)
        let count = min(Int(apus_processors(&numbers, Int32(numbersMax))), numbersMax)
        return count > 0 ? numbers[..<count].map { Int($0) } : [0]
    }

    /// Those that reactors are pinned to, in order. `numa`: those of the NUMA node that has most of the
    /// allowed ones.
    static func forReactors(_ pin: ServiceConfiguration.AutoPin) -> [Int] {
        let allowed = allowed
        guard pin == .numa else { return allowed }
        let nodes = (0..<64).map { node in
            let list = list(readSmallFile("/sys/devices/system/node/node\(node)/cpulist"))
            return allowed.filter { list.contains($0) }
        }
        let largest = nodes.max { $0.count < $1.count } ?? []
        return largest.isEmpty ? allowed : largest
    }

    /// Reads the kernel's form, as in `0-3,8-11`.
    static func list(_ text: String) -> Set<Int> {
        var numbers: Set<Int> = []
        for part in text.split(whereSeparator: { $0 == "," || $0 == "\n" }) {
            let ends = part.split(separator: "-").compactMap { Int($0) }
            guard let first = ends.first, let last = ends.last, first <= last, last < numbersMax else { continue }
            numbers.formUnion(first...last)
        }
        return numbers
    }
}
