// The contract call by call, on small fixed examples: what every backend must do when nothing goes wrong.
internal import Base
internal import Storage

enum ContractCases {
    /// What one shard appended every shard reads.
    static func roundTrip(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            for number in 0..<16 { try session.append(number, byteCount: 100 + 7 * number, shard: number % 2) }
            try session.settle()
            for number in 0..<16 { try session.readEverywhere(number) }
            try session.settle()
        }
    }

    /// Every size, odd ones too; the caller's buffer is overwritten right after the call (`Session.append`).
    static func sizes(_ context: Context) throws(CaseEnd) {
        let limit = min(context.subject.limits.imageSizeMax, 8 << 20)
        let edges = [64, 128, 512, 1024, 4096, 16_384, 65_536, 131_072, 1 << 20, 2 << 20, 4 << 20]
        let near = edges.flatMap { [$0 - 1, $0, $0 + 1] } + [TestImage.byteCountMin, 49, 100, 1000, limit - 1, limit]
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            for (number, byteCount) in Set(near).filter({ TestImage.byteCountMin...limit ~= $0 }).sorted().enumerated() {
                try session.append(number, byteCount: byteCount, shard: number % 2)
                try session.settle()
                try session.readEverywhere(number)
                try session.settle()
                try session.delete(number, shard: number % 2)
                try session.commit(number, shard: number % 2)
                try session.winBack(slices: 8)
            }
        }
    }

    /// A digest appended again reads as the new image, from every shard.
    static func overwrite(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            for round in 0..<40 {
                for number in 0..<4 { try session.append(number, byteCount: 60 + round * 17, shard: (round + number) % 2) }
                try session.settle()
                for number in 0..<4 { try session.readEverywhere(number) }
                try session.settle()
            }
        }
    }

    /// An addressed backend keeps both images of a digest until one is released.
    static func twoVersions(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            session.keepsReplaced = true
            for round in 0..<3 {
                for number in 0..<8 { try session.append(number, byteCount: 200 + round, shard: (round + number) % 2) }
                try session.settle()
            }
            guard session.kept.count == 16 else { throw Failure(text: "two of three images of a digest were replaced") }
            for (number, placed) in session.kept {
                try session.read(
                    number, at: placed.location, version: placed.version, byteCount: placed.byteCount, shard: number % 2)
            }
            try session.settle()
            session.releaseKept(shard: 0)
            try session.settle()
            for number in 0..<8 { try session.readEverywhere(number) }
            try session.settle()
        }
    }

    /// A keyed backend asked for an older version gives the newest.
    static func newestVersion(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            try session.append(1, byteCount: 100, shard: 0)
            try session.settle()
            guard let old = session.records[1]?.current else { throw Failure(text: "an append was not placed") }
            try session.append(1, byteCount: 300, shard: 1)
            try session.settle()
            for shard in 0..<Session.shardCount {
                try session.read(1, at: old.location, version: old.version, byteCount: old.byteCount, shard: shard)
            }
            try session.settle()
        }
    }

    /// What is deleted is gone, whichever shard deletes it; it can be appended again.
    static func delete(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            for round in 0..<3 {
                for number in 0..<8 { try session.append(number, byteCount: 300 + round, shard: number % 2) }
                try session.settle()
                for number in 0..<8 { try session.delete(number, shard: (number + 1) % 2) }
                try session.settle()
                for number in 0..<8 { try session.readEverywhere(number) }
                try session.settle()
            }
            if let number = (0..<8).first(where: { session.records[$0]?.current != nil }) {
                throw Failure(text: "digest \(number) was not deleted")
            }
        }
    }

    /// To remove what is not there is no error.
    static func removeNothing(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            try session.append(1, byteCount: 100, shard: 0)
            try session.settle()
            for shard in [0, 1, 0] {
                try session.deleteNothing(1, shard: shard)
                try session.settle()
                try session.readEverywhere(1)
                try session.settle()
            }
        }
    }

    /// Every commit is answered, also one of a digest that nothing was done to.
    static func commit(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            for number in 0..<20 { try session.append(number, byteCount: 100, shard: number % 2) }
            try session.settle()
            for number in 0..<20 { try session.commit(number, shard: number % 2) }
            try session.settle()
            for number in 0..<20 { try session.commit(number, shard: (number + 1) % 2) }
            for number in 0..<20 { try session.delete(number, shard: 0) }
            try session.settle()
            for number in 0..<20 { try session.commit(number, shard: 0) }
            try session.settle()
        }
    }

    /// With hundreds under way every tag comes back once (`Session.finish`), and none comes later.
    static func tags(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.tolerates = { $0 == .overloaded }
            for number in 0..<400 { try session.append(number, byteCount: 64 + number, shard: number % 2) }
            try session.settle()
            for number in 0..<400 { try session.read(number, shard: (number + 1) % 2) }
            for number in 0..<400 { try session.commit(number, shard: number % 2) }
            try session.settle()
            for number in 0..<400 { try session.delete(number, shard: number % 2) }
            try session.settle()
            for _ in 0..<10 { for shard in 0..<Session.shardCount { try session.turn(shard) } }
            guard session.refusals < 1200 else { throw Failure(text: "everything was refused as overloaded") }
        }
    }

    /// An engine goes on with a request from inside `poll`: calls that come while operations are handed over are as good
    /// as any.
    static func callsFromReceive(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            var calls = 0
            session.whenEnded = { [unowned session] (shard) throws(Failure) in
                guard calls < 600 else { return }
                calls += 1
                let number = calls % 40
                switch calls % 4 {
                case 0: try session.delete(number, shard: shard)
                case 1: try session.commit(number, shard: shard)
                case 2: try session.read(number, shard: shard)
                default: try session.append(number, byteCount: 100 + calls, shard: shard)
                }
            }
            defer { session.whenEnded = nil }
            for number in 0..<40 { try session.append(number, byteCount: 90, shard: number % 2) }
            try session.settle()
            for number in 0..<40 { try session.readEverywhere(number) }
            try session.settle()
        }
    }

    /// What a read lends stays as it is until the end of the turn, whatever another shard does meanwhile.
    static func lentBytes(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            for round in 0..<10 {
                for number in 0..<8 { try session.append(number, byteCount: 500, shard: number % 2) }
                try session.settle()
                for number in 0..<8 { try session.read(number, shard: 0) }
                var turns = 0
                while session.lentCount(0) == 0 {
                    try session.turn(0)
                    turns += 1
                    // What was lent last is given back in the same turn that the last read ends in: there is nothing to see.
                    guard !session.pending.isEmpty else { break }
                    guard turns < 30_000 else { throw Failure(text: "a read was never answered") }
                    if turns > 1000 { session.rest() }
                }
                try churn(session, round)
                try session.turn(0)
                try session.settle()
            }
        }
    }

    /// Shard 1 replaces and deletes what shard 0 reads, and appends enough to use freed space again; shard 0 appends, too,
    /// in the turn it is in.
    private static func churn(_ session: Session, _ round: Int) throws(Failure) {
        for number in 0..<8 { try session.append(200 + number, byteCount: 500, shard: 0) }
        for number in 0..<8 {
            if number % 2 == 0 {
                try session.append(number, byteCount: 500, shard: 1)
            } else {
                try session.delete(number, shard: 1)
            }
        }
        for step in 0..<60 {
            try session.turn(1)
            try session.append(100 + step % 10, byteCount: 1000 + step, shard: 1)
            try session.compact(shard: 1, byteBudget: 16 << 10)
        }
    }

    /// An image above the limit is refused as too large, and nothing has changed.
    static func tooLarge(_ context: Context) throws(CaseEnd) {
        let limit = context.subject.limits.imageSizeMax
        guard limit < Envelope.imageSizeMax else { throw .skipped("no image is above the limit of \(limit) bytes") }
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            try session.append(1, byteCount: 100, shard: 0)
            try session.settle()
            session.tolerates = { if case .tooLarge = $0 { true } else { false } }
            try session.append(1, byteCount: limit + 1, shard: 0)
            try session.settle()
            guard session.refusals == 1 else {
                throw Failure(text: "an image of \(limit + 1) bytes was taken; the limit is \(limit)")
            }
            try session.readEverywhere(1)
            try session.append(1, byteCount: 200, shard: 0)
            try session.settle()
            try session.readEverywhere(1)
            try session.settle()
        }
    }

    /// Each shard is an object of its own, and none is pressed when nothing is under way.
    static func shards(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            guard session.shards[0] !== session.shards[1] else {
                throw Failure(text: "makeShard gave the same object twice")
            }
            guard session.shards.allSatisfy({ $0.pressure < .full }) else {
                throw Failure(text: "a shard of an empty backend refuses work")
            }
        }
    }

    /// Used bytes grow with images and fall when these are gone; also asked on other threads.
    static func statistics(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            let empty = session.backend.statistics
            for number in 0..<64 { try session.append(number, byteCount: 1000, shard: number % 2) }
            try session.settle()
            let full = session.backend.statistics
            // A keyed backend may leave the counting to the node.
            if session.isKeyed, full.usedBytes == 0 { return }
            guard full.usedBytes >= empty.usedBytes + 64_000 else {
                throw Failure(text: "64 images of 1000 bytes took usedBytes from \(empty.usedBytes) to \(full.usedBytes)")
            }
            guard full.totalBytes == 0 || full.usedBytes <= full.totalBytes && full.availableBytes <= full.totalBytes else {
                throw Failure(
                    text: "usedBytes \(full.usedBytes) or availableBytes \(full.availableBytes) exceeds totalBytes"
                        + " \(full.totalBytes)")
            }
            for number in 0..<64 { try session.delete(number, shard: number % 2) }
            try session.settle()
            var after: [UInt64] = [0, 0]
            after.withUnsafeMutableBufferPointer { figures in
                nonisolated(unsafe) let figures = figures
                onThreads(2) { figures[$0] = session.backend.statistics.usedBytes }
            }
            guard after.allSatisfy({ $0 + 32_000 <= full.usedBytes }) else {
                throw Failure(
                    text: "64 images of 1000 bytes were deleted, and usedBytes went from \(full.usedBytes) to \(after[0])")
            }
        }
    }

    /// A volatile backend answers every call at once.
    static func atOnce(_ context: Context) throws(CaseEnd) {
        try context.onSession { (session) throws(Failure) in
            session.refuseNothing()
            for number in 0..<20 {
                try session.append(number, byteCount: 100 + number, shard: number % 2)
                try session.readEverywhere(number)
                try session.commit(number, shard: number % 2)
                guard session.pending.isEmpty else {
                    throw Failure(text: "a call answered pending; the backend is volatile")
                }
            }
        }
    }
}

extension Session {
    /// No error is right in a case with so little in it.
    func refuseNothing() { tolerates = { _ in false } }

    /// Reads `number` from every shard.
    func readEverywhere(_ number: Int) throws(Failure) {
        for shard in 0..<Session.shardCount { try read(number, shard: shard) }
    }

    /// Lets the backend win space back: turns, and slices of compaction as long as they find something.
    func winBack(slices: Int) throws(Failure) {
        for slice in 0..<slices {
            try settle()
            if try compact(shard: slice % Session.shardCount, byteBudget: 1 << 20) == 0 { break }
        }
        try settle()
    }
}
