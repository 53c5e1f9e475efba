// What a copy of a partition holds. Invariants:
// 1. A line is the epochs that a copy went through, newest first; regimes fall strictly along it.
// 2. An epoch names one acting master and one set of copies: whoever has it as its newest epoch got every write of it from
//    the moment it went along. When a copy leaves that set or joins it, or the master changes, a new epoch begins.
package import Base
internal import Fabric

/// The version of one copy.
package struct PartitionVersion: Hashable, Sendable {
    /// Most ancestors that are kept.
    package static let ancestorsMax = 16

    /// The newest epoch that the copy went along with. Never raw value 0.
    package let epoch: Epoch
    /// The epochs before it, newest first, at most `ancestorsMax`.
    package let ancestors: [Epoch]
    /// The copy holds every write from this epoch on, and not all of what is older; nil: it holds everything (*full*).
    package let subsetSince: Epoch?
    /// Its node stopped while writes were open: what it took last may be missing.
    package let isTorn: Bool

    /// More ancestors than are kept are cut off, oldest first.
    package init(epoch: Epoch, ancestors: [Epoch] = [], subsetSince: Epoch? = nil, isTorn: Bool = false) {
        precondition(epoch.rawValue != 0)
        self.epoch = epoch
        self.ancestors = ancestors.count > Self.ancestorsMax ? Array(ancestors.prefix(Self.ancestorsMax)) : ancestors
        self.subsetSince = subsetSince
        self.isTorn = isTorn
    }

    /// Whether it holds everything of its line.
    package var isFull: Bool { subsetSince == nil }
    /// Whether nothing that it took can be missing.
    package var isSound: Bool { !isTorn }
    /// The epoch, and those before it.
    package var line: [Epoch] { [epoch] + ancestors }

    /// Whether `other` is of the same line, as new or older.
    package func covers(_ other: PartitionVersion) -> Bool { epoch == other.epoch || ancestors.contains(other.epoch) }

    /// Whether a copy of this version has all that one of `other` may have. A subset or a torn copy promises that of none.
    package func holdsAll(of other: PartitionVersion) -> Bool { isFull && isSound && covers(other) }

    /// The version after the copy went along into `next`.
    package func advanced(to next: Epoch) -> PartitionVersion {
        PartitionVersion(epoch: next, ancestors: line, subsetSince: subsetSince, isTorn: isTorn)
    }

    /// The version of a copy that takes part in this line from `next` on, whatever it held before.
    package func joined(at next: Epoch) -> PartitionVersion {
        PartitionVersion(epoch: next, ancestors: line, subsetSince: next)
    }

    /// The same, torn: what a node makes of a copy that it finds open when it starts.
    package var torn: PartitionVersion {
        PartitionVersion(epoch: epoch, ancestors: ancestors, subsetSince: subsetSince, isTorn: true)
    }

    /// Whether `versions` together hold every write up to and with the end of epoch `newest`. Torn ones do not count.
    /// A full copy does alone; a subset does with a copy that reaches to the epoch before it became one, and so on back.
    package static func areComplete(_ versions: [PartitionVersion], upTo newest: Epoch) -> Bool {
        let sound = versions.filter(\.isSound)
        return sound.contains { $0.epoch == newest && $0.isCompleted(by: sound) }
    }

    /// Goes back along this line as far as copies reach into each other.
    private func isCompleted(by others: [PartitionVersion]) -> Bool {
        guard var missingBefore = subsetSince else { return true }
        let line = line
        while true {
            // Those that reach up to where what is held begins: the epoch after their newest is held already.
            let reaching = others.filter { other in
                guard let place = line.firstIndex(of: other.epoch) else { return false }
                return place == 0 || line[place - 1].regime >= missingBefore.regime
            }
            if reaching.contains(where: \.isFull) { return true }
            let earliest = reaching.compactMap(\.subsetSince).min { $0.regime < $1.regime }
            guard let earliest, earliest.regime < missingBefore.regime else { return false }
            missingBefore = earliest
        }
    }
}

extension PartitionVersion: CustomStringConvertible {
    /// As explanations and logs name it: `full, sound, epoch 5-3fa9c`.
    package var description: String {
        let extent = subsetSince.map { "subset since \($0.words)" } ?? "full"
        return "\(extent), \(isTorn ? "torn" : "sound"), epoch \(epoch.words)"
    }
}

extension Epoch {
    /// `5-3fa9c`: regime, and view key in hexadecimal.
    package var words: String { "\(regime)-\(String(viewKey, radix: 16))" }

    /// The epoch after all that are known: a regime is never given up. At the highest regime the key alone tells them apart.
    package static func next(after highest: Epoch, viewKey: UInt64) -> Epoch {
        Epoch(regime: min(highest.regime, 0xFF_FFFE) + 1, viewKey: viewKey)
    }
}
