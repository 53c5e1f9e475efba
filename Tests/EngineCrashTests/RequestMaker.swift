// Requests as chance has it.
import Base

/// Makes the requests of one history; every change has a number of its own.
struct RequestMaker {
    private static let historySizeMax = 120
    private let plan: CrashPlan
    private var lastNumber = 0
    /// Some records are asked for more often than others.
    private let favourites: Int

    init(_ plan: CrashPlan, seed: UInt64) {
        var random = SeededRandom(seed: seed)
        self.plan = plan
        favourites = Int.random(in: 1...plan.recordCount, using: &random)
    }

    mutating func next(_ model: CrashModel, _ random: inout SeededRandom) -> ClientRequest {
        let most = Bool.random(using: &random) ? favourites : plan.recordCount
        let key = Int.random(in: 0..<most, using: &random)
        let dice = Int.random(in: 0..<100, using: &random)
        var request = ClientRequest(kind: .change, key: key)
        switch dice {
        case 0..<25: request.kind = .get
        case 25..<30: request.kind = .delete
        case 30..<35:
            request.kind = .delete
            request.isDurableDelete = true
        case 35..<38:
            request.changes = ["v", "n", "h", "pad"].map { .remove($0) }
            request.isDurableDelete = Bool.random(using: &random)
        default: change(&request, dice, model.records[key], &random)
        }
        return request
    }

    /// A write that needs little room.
    mutating func small(key: Int) -> ClientRequest {
        lastNumber += 1
        var request = ClientRequest(kind: .change, key: key, number: lastNumber)
        request.isReplace = true
        request.changes = [.write(Bin(name: "v", type: ParticleType.integer, value: integerBytes(lastNumber)))]
        return request
    }

    private mutating func change(
        _ request: inout ClientRequest, _ dice: Int, _ record: RecordHistory, _ random: inout SeededRandom
    ) {
        lastNumber += 1
        request.number = lastNumber
        request.changes = [.write(Bin(name: "v", type: ParticleType.integer, value: integerBytes(lastNumber)))]
        let pad = Change.write(Bin(name: "pad", type: ParticleType.blob, value: padding(&random)))
        switch dice {
        case 38..<50: request.changes += [.increment("n"), .read("n")]
        case 50..<60:
            let mark = Array(" \(lastNumber)".utf8)
            let isLong = record.now.content["h"].map { $0.value.count > RequestMaker.historySizeMax } ?? false
            request.changes.append(isLong
                ? .write(Bin(name: "h", type: ParticleType.string, value: mark)) : .append("h", mark))
        case 60..<65: request.changes.append(.touch)
        case 65..<75:
            request.isReplace = true
            request.changes.append(pad)
            if Int.random(in: 0..<4, using: &random) == 0 { request.condition = .updateOnly }
        case 75..<80:
            request.condition = .createOnly
            request.changes.append(pad)
        case 80..<86:
            let known = UInt32(record.generation ?? 1)
            request.condition = .generation(Bool.random(using: &random) ? known : known + 1)
            request.changes.append(pad)
        default: request.changes.append(pad)
        }
    }

    /// Bytes that no other write has.
    private func padding(_ random: inout SeededRandom) -> [UInt8] {
        let count = Int.random(in: 0...plan.padSizeMax, using: &random)
        var state = UInt64(lastNumber) &* 0x9E37_79B9_7F4A_7C15 | 1
        return (0..<count).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 56)
        }
    }
}
