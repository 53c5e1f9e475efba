/// Finds what a misspelt word was meant to be.
enum NearestName {
    private static let lengthMax = 64

    /// The candidate that takes the fewest edits, if few enough to be meant; the first of equals.
    static func find(_ word: String, in candidates: [String]) -> String? {
        let word = Array(word.lowercased().utf8)
        guard word.count <= lengthMax else { return nil }
        let tolerance = max(2, word.count / 3)
        var best: (name: String, edits: Int)?
        for candidate in candidates {
            let edits = distance(word, Array(candidate.utf8))
            if edits <= tolerance, edits < best?.edits ?? .max { best = (candidate, edits) }
        }
        return best?.name
    }

    /// Insertions, deletions, replacements and swaps of neighbours between two words.
    static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        guard !left.isEmpty, !right.isEmpty else { return max(left.count, right.count) }
        var before = [Int](repeating: 0, count: right.count + 1)
        var previous = Array(0...right.count)
        for row in 1...left.count {
            var current = [row] + [Int](repeating: 0, count: right.count)
            for column in 1...right.count {
                let isSame = left[row - 1] == right[column - 1]
                current[column] = min(
                    previous[column] + 1, current[column - 1] + 1, previous[column - 1] + (isSame ? 0 : 1))
                if row > 1, column > 1, left[row - 1] == right[column - 2], left[row - 2] == right[column - 1] {
                    current[column] = min(current[column], before[column - 2] + 1)
                }
            }
            before = previous
            previous = current
        }
        return previous[right.count]
    }
}
