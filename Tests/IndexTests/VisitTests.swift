import Base
import Index
import TestSupport
import Testing

@Suite struct VisitTests {
    private func entry(_ digest: Digest, _ value: UInt64) -> IndexEntry {
        var entry = IndexEntry(digest: digest)
        entry.location = value
        return entry
    }

    /// A digest of partition 7; `crowd` of all digests are in one bucket.
    private func digest(_ random: inout SeededRandom, crowdPercent: Int) -> Digest {
        let digest = Digest.random(&random)
        guard Int.random(in: 0..<100, using: &random) < crowdPercent else {
            return Digest(low: digest.low & ~0xFFF | 7, middle: digest.middle, high: digest.high)
        }
        return Digest(low: 7, middle: digest.middle, high: digest.high)
    }

    /// Inserts (with splits), removals and replaces between the holds: what lives throughout is met, what was removed before
    /// the walk is not, and a hold meets no more than it may.
    @Test(arguments: [0, 5, 90])
    func meetsWhatLivesThroughout(crowdPercent: Int) throws {
        var random = SeededRandom(seed: runSeed("VisitTests"))
        let partition = PartitionID(7)
        let room = VisitRoom()
        defer { room.release() }
        try forAWhile(1) {
            let index = try PrimaryIndex(heapFor: 1 << 16)
            var live: Set<Digest> = []
            // The same in an order that a seed repeats.
            var order: [Digest] = []
            func change(_ times: Int, insertPercent: Int) throws {
                for _ in 0..<times {
                    let kind = Int.random(in: 0..<100, using: &random)
                    if kind < insertPercent || live.isEmpty {
                        let digest = digest(&random, crowdPercent: crowdPercent)
                        guard index.find(digest) == nil else { continue }
                        try index.insert(digest, entry(digest, 1))
                        live.insert(digest)
                        order.append(digest)
                        continue
                    }
                    let place = Int.random(in: 0..<order.count, using: &random)
                    let digest = order[place]
                    if let reference = index.find(digest) {
                        if kind % 2 == 0 {
                            _ = try index.replace(reference, with: entry(digest, 2), partition: partition)
                        } else {
                            index.remove(reference, partition: partition)
                            live.remove(digest)
                            order[place] = order[order.count - 1]
                            order.removeLast()
                        }
                    }
                }
            }
            try change(Int.random(in: 0..<3000, using: &random), insertPercent: 90)
            var throughout = live
            var everAlive = live
            var met: Set<Digest> = []
            var cursor = VisitCursor()
            var holds = 0
            let growth = Int.random(in: 0...100, using: &random)
            while !cursor.isDone {
                let count = index.visit(partition, &cursor, room: room) { visited in
                    let digest = visited.digest(partition)
                    #expect(live.contains(digest))
                    met.insert(digest)
                    #expect(visited.entry.pointee.location == visited.record(partition).entry.location)
                }
                #expect(count <= VisitRoom.capacity)
                holds += 1
                #expect(holds < 100_000, "the walk does not end")
                try change(Int.random(in: 0..<40, using: &random), insertPercent: growth)
                throughout.formIntersection(live)
                everAlive.formUnion(live)
            }
            #expect(throughout.isSubset(of: met))
            #expect(met.isSubset(of: everAlive))
        }
    }

    /// Nothing changes: every entry exactly once, in all partitions.
    @Test func meetsEachOnceInPeace() throws {
        var random = SeededRandom(seed: runSeed("VisitTests"))
        let index = try PrimaryIndex(heapFor: 1 << 17)
        var expected: Set<Digest> = []
        for _ in 0..<50_000 {
            let digest = Digest.random(&random)
            guard expected.insert(digest).inserted else { continue }
            try index.insert(digest, entry(digest, 3))
        }
        let room = VisitRoom()
        defer { room.release() }
        var met: Set<Digest> = []
        var total = 0
        for number in 0..<PartitionID.count {
            let partition = PartitionID(UInt16(number))
            var cursor = VisitCursor()
            while !cursor.isDone {
                total += index.visit(partition, &cursor, room: room) { met.insert($0.digest(partition)) }
            }
        }
        #expect(total == expected.count && met == expected)
    }
}
