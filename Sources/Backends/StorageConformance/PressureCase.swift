// A medium that gets full: what was placed stays, the figures tell, and space comes back.
internal import Base
internal import Storage

enum PressureCase {
    private static let byteCount = 4000
    private static let imagesMax = 100_000
    /// So often in a row an append is refused before the medium counts as full: a queue may just be long.
    private static let refusalsMax = 64

    static func run(_ context: Context) throws(CaseEnd) {
        let small: (any Backend)?
        do throws(StorageError) {
            small = try context.subject.makeSmall()
        } catch {
            throw .failed("opening on a small medium failed: \(error)", history: [])
        }
        guard let small else { throw .skipped("the subject has no small medium") }
        try context.onSession(small) { (session) throws(Failure) in
            let count = try fill(session, from: 0)
            try tell(session)
            try readAll(session)
            for round in 0..<3 { try refill(session, count: count, round: round) }
        }
    }

    /// Appends until the backend refuses for good; how many images fitted.
    private static func fill(_ session: Session, from first: Int) throws(Failure) -> Int {
        var number = first
        var refusalsInARow = 0
        while refusalsInARow < refusalsMax {
            guard number - first < imagesMax else {
                throw Failure(text: "\(imagesMax) images of \(byteCount) bytes fitted on the small medium")
            }
            try session.append(number, byteCount: byteCount, shard: number % 2)
            if session.shards[number % 2].pressure > .none || number % 8 == 7 { try session.settle() }
            if session.records[number]?.current == nil, session.records[number]?.isBusy == false {
                refusalsInARow += 1
                try session.winBack(slices: 4)
            } else {
                refusalsInARow = 0
                number += 1
            }
        }
        try session.settle()
        guard let refusal = session.lastRefusal, refusal == .outOfSpace || refusal == .overloaded else {
            throw Failure(text: "a full medium was refused with \(String(describing: session.lastRefusal))")
        }
        return number - first
    }

    /// Pressure or the figures have said what was coming.
    private static func tell(_ session: Session) throws(Failure) {
        let figures = session.backend.statistics
        let isPressed = figures.pressure >= .high || session.shards.contains { $0.pressure >= .high }
        let isLow = figures.totalBytes > 0 && figures.availableBytes <= figures.totalBytes / 4
        guard isPressed || isLow else {
            throw Failure(
                text: "appends are refused, yet pressure is \(figures.pressure) and \(figures.availableBytes) of"
                    + " \(figures.totalBytes) bytes are available")
        }
    }

    private static func readAll(_ session: Session) throws(Failure) {
        for number in session.records.keys.sorted() {
            try session.read(number, shard: number % 2)
            if number % 32 == 0 { try session.settle() }
        }
        try session.settle()
    }

    /// Deletes half of what is there, spread over all; then at least half as much fits again.
    private static func refill(_ session: Session, count: Int, round: Int) throws(Failure) {
        let present = session.records.filter { $0.value.current != nil }.keys.sorted()
        for (place, number) in present.enumerated() where place % 2 == round % 2 {
            try session.delete(number, shard: place % 2)
            try session.settle()
            try session.commit(number, shard: place % 2)
            if place % 16 == 0 { try session.winBack(slices: 2) }
        }
        try session.winBack(slices: 1000)
        let left = session.records.count { $0.value.current != nil }
        guard left <= present.count * 3 / 4 else {
            throw Failure(text: "of \(present.count) images \(left) are left after deleting half")
        }
        let fitted = try fill(session, from: (session.records.keys.max() ?? 0) + 1)
        guard fitted >= count / 8 else {
            throw Failure(text: "\(present.count - left) of \(count) images were deleted, and only \(fitted) fitted again")
        }
        try readAll(session)
    }
}
