extension RandomAccessCollection where Index == Int {
    /// The place of the first element of which `isBelow` is false, or the end. Those of which it is true all come first.
    @inlinable
    public func lowerBound(_ isBelow: (Element) -> Bool) -> Int {
        var (low, high) = (startIndex, endIndex)
        while low < high {
            let middle = (low + high) / 2
            if isBelow(self[middle]) { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
