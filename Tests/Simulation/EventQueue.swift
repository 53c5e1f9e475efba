// What is to happen, by virtual time and, within one nanosecond, in the order in which it was planned: a binary heap of
// small entries, and the elements beside it, where they are not moved about.

/// A heap of (virtual nanoseconds, sequence).
struct EventQueue<Element> {
    private struct Entry {
        let time: UInt64
        let sequence: UInt64
        let place: Int

        func isBefore(_ other: Entry) -> Bool { time == other.time ? sequence < other.sequence : time < other.time }
    }
    private var heap: [Entry] = []
    private var elements: [Element?] = []
    private var free: [Int] = []
    private var sequence: UInt64 = 0

    /// Time of the first, if any.
    var nextTime: UInt64? { heap.first?.time }

    mutating func push(_ element: Element, at time: UInt64) {
        sequence += 1
        let entry = Entry(time: time, sequence: sequence, place: keep(element))
        heap.append(entry)
        var place = heap.count - 1
        while place > 0 {
            let parent = (place - 1) / 2
            guard entry.isBefore(heap[parent]) else { break }
            heap[place] = heap[parent]
            place = parent
        }
        heap[place] = entry
    }

    private mutating func keep(_ element: Element) -> Int {
        guard let place = free.popLast() else {
            elements.append(element)
            return elements.count - 1
        }
        elements[place] = element
        return place
    }

    mutating func pop() -> (time: UInt64, element: Element)? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty { sink(last) }
        free.append(first.place)
        guard let element = elements[first.place].take() else { preconditionFailure("an entry without an element") }
        return (first.time, element)
    }

    private mutating func sink(_ entry: Entry) {
        var place = 0
        while true {
            var child = 2 * place + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, heap[child + 1].isBefore(heap[child]) { child += 1 }
            guard heap[child].isBefore(entry) else { break }
            heap[place] = heap[child]
            place = child
        }
        heap[place] = entry
    }
}
