// Which nodes could be a view: those that all hear each other. Where links work one way only, or not between all, the fewest
// nodes are left out: a smallest vertex cover of the graph of missing links.
internal import Base
internal import Fabric

/// The group that one node finds best. It is always in it.
struct ViewGroup: Equatable {
    /// By id, highest first.
    var members: [Member]
    /// Nodes that hear this one and are heard by it, but lack links to others.
    var leftOut: [Member]

    /// - Parameters:
    ///   - candidates: other nodes that hear `me` and are heard, by id.
    ///   - current: the members of the view so far, preferred where the choice is free; then larger ids are.
    init(_ me: Member, _ candidates: [Neighbour], current: [Member]) {
        var search = CoverSearch(
            conflicts: ViewGroup.conflicts(candidates),
            isCurrent: candidates.map { current.contains($0.member) })
        let isLeftOut = search.run()
        let all = candidates.map(\.member)
        leftOut = zip(all, isLeftOut).filter(\.1).map(\.0)
        members = (zip(all, isLeftOut).filter { !$0.1 }.map(\.0) + [me]).sorted(by: >)
    }

    /// For each candidate the places of those with which a link is missing in one direction or in both.
    private static func conflicts(_ candidates: [Neighbour]) -> [[Int]] {
        let heard = candidates.map { heardPlaces($0, among: candidates) }
        return candidates.indices.map { place in
            candidates.indices.filter { $0 != place && !(heard[place][$0] && heard[$0][place]) }
        }
    }

    private static func heardPlaces(_ node: Neighbour, among candidates: [Neighbour]) -> [Bool] {
        var places = [Bool](repeating: false, count: candidates.count)
        var next = 0
        for member in node.hears {
            while next < candidates.count, candidates[next].member < member { next += 1 }
            if next < candidates.count, candidates[next].member == member { places[next] = true }
        }
        return places
    }
}

/// Smallest vertex cover by branch and bound; the best so far when the budget ends, so that time is bounded. Never depends
/// on anything but its input.
private struct CoverSearch {
    let conflicts: [[Int]]
    let isCurrent: [Bool]
    /// Branches; exact where about twenty nodes lack links to each other.
    private var budget = 4_000
    private var isRemoved: [Bool]
    private var degrees: [Int]
    private var removedCount = 0
    private var best: [Bool]?
    private var bestCount = Int.max

    init(conflicts: [[Int]], isCurrent: [Bool]) {
        self.conflicts = conflicts
        self.isCurrent = isCurrent
        isRemoved = conflicts.map { _ in false }
        degrees = conflicts.map(\.count)
    }

    /// Whether each place is left out.
    mutating func run() -> [Bool] {
        descend()
        return best ?? isRemoved
    }

    /// The first descent always removes the place with most conflicts: the heuristic, which the rest can only better.
    private mutating func descend() {
        guard removedCount <= bestCount else { return }
        guard let place = worst() else { return offer() }
        guard best == nil || budget > 0 else { return }
        budget -= 1
        remove(place)
        descend()
        restore(place)
        let others = conflicts[place].filter { !isRemoved[$0] }
        guard removedCount + others.count <= bestCount, budget > 0 else { return }
        others.forEach { remove($0) }
        descend()
        others.reversed().forEach { restore($0) }
    }

    /// The place with most conflicts; at ties one that is not current, then the smaller id.
    private func worst() -> Int? {
        var found: Int?
        for place in degrees.indices where !isRemoved[place] && degrees[place] > 0 {
            guard let other = found else {
                found = place
                continue
            }
            let isWorse = degrees[place] > degrees[other]
                || degrees[place] == degrees[other] && !isCurrent[place] && isCurrent[other]
            if isWorse { found = place }
        }
        return found
    }

    private mutating func remove(_ place: Int) {
        isRemoved[place] = true
        removedCount += 1
        for other in conflicts[place] { degrees[other] -= 1 }
    }

    private mutating func restore(_ place: Int) {
        isRemoved[place] = false
        removedCount -= 1
        for other in conflicts[place] { degrees[other] += 1 }
    }

    private mutating func offer() {
        guard removedCount < bestCount || isBetter() else { return }
        best = isRemoved
        bestCount = removedCount
    }

    /// At equal counts: fewer current members left out, then the larger ids kept.
    private func isBetter() -> Bool {
        guard let best else { return true }
        func currentLeftOut(_ removed: [Bool]) -> Int { zip(removed, isCurrent).count { $0.0 && $0.1 } }
        let (mine, others) = (currentLeftOut(isRemoved), currentLeftOut(best))
        guard mine == others else { return mine < others }
        for place in best.indices.reversed() where best[place] != isRemoved[place] { return best[place] }
        return false
    }
}
