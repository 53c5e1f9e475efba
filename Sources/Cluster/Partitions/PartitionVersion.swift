// What a copy of a partition holds. Invariants:
// 1. A line is the epochs that a copy went through, newest first; regimes fall strictly along it.
// 2. An epoch names one acting master and one set of copies: whoever has it as its newest epoch got every write of it. When
//    a copy leaves that set or joins it, or the master changes, a new epoch begins. Else a copy that was cut off while the
//    same master went on would look complete when it comes back.
// 3. A copy takes part in one line at a time. What it has besides is either older content of that line, or makes it *mixed*:
//    then nothing covers it until it was merged.
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
    /// A subset that holds everything up to and with the end of this epoch of its line, too: what is between is missing.
    package let base: Epoch?
    /// Its node stopped while writes were open: what it took last may be missing.
    package let isTorn: Bool
    /// A subset that has writes of other lines, too.
    package let isMixed: Bool

    /// More ancestors than are kept are cut off, oldest first, and the base with them.
    package init(
        epoch: Epoch, ancestors: [Epoch] = [], subsetSince: Epoch? = nil, base: Epoch? = nil, isTorn: Bool = false,
        isMixed: Bool = false
    ) {
        precondition(epoch.rawValue != 0 && (subsetSince != nil || base == nil && !isMixed))
        self.epoch = epoch
        let kept = ancestors.count > Self.ancestorsMax ? Array(ancestors.prefix(Self.ancestorsMax)) : ancestors
        self.ancestors = kept
        self.subsetSince = subsetSince
        self.base = base.flatMap { kept.contains($0) ? $0 : nil }
        self.isTorn = isTorn
        self.isMixed = isMixed
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
    package func holdsAll(of other: PartitionVersion) -> Bool { isFull && isSound && !other.isMixed && covers(other) }

    /// The version after the copy went along into `next`.
    package func advanced(to next: Epoch) -> PartitionVersion {
        PartitionVersion(
            epoch: next, ancestors: line, subsetSince: subsetSince, base: base, isTorn: isTorn, isMixed: isMixed)
    }

    /// The version of a copy that takes part in this line from `next` on. `held`: what it was before.
    package func joined(at next: Epoch, from held: PartitionVersion?) -> PartitionVersion {
        guard let held, covers(held) else {
            return PartitionVersion(epoch: next, ancestors: line, subsetSince: next, isMixed: held != nil)
        }
        let base = held.isSound ? (held.isFull ? held.epoch : held.base) : nil
        return PartitionVersion(epoch: next, ancestors: line, subsetSince: next, base: base, isMixed: held.isMixed)
    }

    /// The same, torn: what a node makes of a copy that it finds open when it starts. What is older than its last writes may
    /// have been among them.
    package var torn: PartitionVersion {
        PartitionVersion(epoch: epoch, ancestors: ancestors, subsetSince: subsetSince, isTorn: true, isMixed: isMixed)
    }

    /// Whether `versions` together hold every write up to and with the end of epoch `newest`. Torn ones do not count. A full
    /// copy does alone; a subset does with copies that have what it misses of its line.
    package static func areComplete(_ versions: [PartitionVersion], upTo newest: Epoch) -> Bool {
        let sound = versions.filter(\.isSound)
        guard let line = sound.first(where: { $0.epoch == newest })?.line else { return false }
        var held = [Bool](repeating: false, count: line.count)
        var holdsOlder = false
        for version in sound {
            guard let newest = line.firstIndex(of: version.epoch) else { continue }
            for place in newest..<line.count where version.isFull || line[place].regime >= version.subsetSince!.regime {
                held[place] = true
            }
            let base = version.isFull ? newest : version.base.flatMap { line.firstIndex(of: $0) }
            guard let base else { continue }
            holdsOlder = true
            for place in base..<line.count { held[place] = true }
        }
        return holdsOlder && !held.contains(false)
    }
}

extension PartitionVersion: CustomStringConvertible {
    /// As explanations and logs name it: `full, sound, epoch 5-3fa9c`.
    package var description: String {
        var extent = subsetSince.map { "subset since \($0.words)" } ?? "full"
        if let base { extent += " and up to \(base.words)" }
        if isMixed { extent += ", not merged" }
        return "\(extent), \(isTorn ? "torn" : "sound"), epoch \(epoch.words)"
    }
}

extension Epoch {
    /// `5-3fa9c`: regime, and view key in hexadecimal.
    package var words: String { "\(regime)-\(String(viewKey, radix: 16))" }

    /// The epoch that begins with a view: its regime is the number of the view, and in any case above all that are known. So
    /// the epoch of a view that some members stored and nobody opened is below that of the view that came instead. At the
    /// highest regime, 16,777,215, the key alone tells epochs apart.
    package static func next(after highest: Epoch, viewNumber: UInt64, viewKey: UInt64) -> Epoch {
        let regime = max(UInt64(min(highest.regime, 0xFF_FFFE) + 1), min(viewNumber, 0xFF_FFFF))
        return Epoch(regime: UInt32(regime), viewKey: viewKey)
    }
}
