// What a record holds and what a request makes of it, said once more and as simply as possible.
import Base
import Record
import Wire

/// One bin.
struct Bin: Equatable {
    let name: String
    let type: UInt8
    let value: [UInt8]
}

/// The bins of a record, by name.
struct Content: Equatable {
    private(set) var bins: [Bin] = []

    init() {}

    /// What stands in an image.
    init(_ image: ImageView) {
        var all = image.bins
        while let bin = all.next() { set(Bin(name: bin.name.text, type: bin.particleType, value: Array(bin.value))) }
    }

    subscript(name: String) -> Bin? { bins.first { $0.name == name } }

    mutating func remove(_ name: String) { bins.removeAll { $0.name == name } }

    mutating func set(_ bin: Bin) {
        remove(bin.name)
        let place = bins.firstIndex { $0.name > bin.name } ?? bins.count
        bins.insert(bin, at: place)
    }

    func integer(_ name: String) -> Int? {
        self[name].map { bin in Int(bin.value.reduce(Int64(0)) { $0 << 8 | Int64($1) }) }
    }

    /// For people.
    var text: String {
        let words = bins.map { bin in
            bin.type == ParticleType.integer ? "\(bin.name)=\(integer(bin.name) ?? 0)"
                : bin.value.count > 40 ? "\(bin.name):\(bin.value.count) bytes"
                : "\(bin.name)=\(String(decoding: bin.value, as: UTF8.self))"
        }
        return words.joined(separator: " ")
    }
}

/// One operation of a write.
enum Change {
    case write(Bin)
    case remove(String)
    case increment(String)
    case append(String, [UInt8])
    case touch
    case read(String)

    func apply(to content: inout Content) {
        switch self {
        case .write(let bin): content.set(bin)
        case .remove(let name): content.remove(name)
        case .increment(let name):
            content.set(Bin(name: name, type: ParticleType.integer, value: integerBytes((content.integer(name) ?? 0) + 1)))
        case .append(let name, let more):
            content.set(Bin(name: name, type: ParticleType.string, value: (content[name]?.value ?? []) + more))
        case .touch, .read: break
        }
    }

    func encode(to encoder: inout RequestEncoder) {
        func add(_ code: UInt8, _ type: UInt8, _ name: String, _ value: [UInt8]) {
            value.withUnsafeBytes { encoder.operation(code, type, name, $0) }
        }
        switch self {
        case .write(let bin): add(OperationCode.write, bin.type, bin.name, bin.value)
        case .remove(let name): add(OperationCode.write, ParticleType.null, name, [])
        case .increment(let name): add(OperationCode.increment, ParticleType.integer, name, integerBytes(1))
        case .append(let name, let more): add(OperationCode.append, ParticleType.string, name, more)
        case .touch: add(OperationCode.touch, ParticleType.null, "", [])
        case .read(let name): add(OperationCode.read, ParticleType.null, name, [])
        }
    }

    var isRead: Bool { if case .read = self { true } else { false } }
}

func integerBytes(_ value: Int) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: value >> (56 - 8 * $0)) } }

/// What a client asks for.
struct ClientRequest {
    enum Kind { case get, change, delete }
    enum Condition: Equatable { case none, createOnly, updateOnly, generation(UInt32) }
    var kind: Kind
    /// Which record.
    var key: Int
    /// Of its own among all writes of a history; every change writes it to the bin `v`.
    var number = 0
    var changes: [Change] = []
    var condition = Condition.none
    /// Other bins go.
    var isReplace = false
    /// Should the record go: it must not come back.
    var isDurableDelete = false

    /// The record as it is afterwards; without bins it is gone.
    func applied(to content: Content?) -> Content {
        var new = isReplace ? Content() : content ?? Content()
        for change in changes { change.apply(to: &new) }
        return new
    }

    /// A write that takes the last bin away deletes.
    var removesAll: Bool { kind == .change && number == 0 }
    /// Whether it may be carried out on such a record; nil is none.
    func isAllowed(_ generation: UInt16?) -> Bool {
        switch condition {
        case .createOnly: return generation == nil
        case .updateOnly: return generation != nil
        case .generation(let sent): return sent == UInt32(generation ?? 0)
        case .none: return generation != nil || (kind == .change && !needsRecord)
        }
    }
    var needsRecord: Bool {
        changes.contains { if case .touch = $0 { true } else { false } }
    }

    /// The frame without its header.
    func body(_ digest: Digest, _ output: OutputBuffer) -> UnsafeRawBufferPointer {
        var header = MessageHeader()
        switch kind {
        case .get: header.info1 = [.read, .getAllBins]
        case .delete: header.info2 = [.write, .delete]
        case .change:
            header.info2 = .write
            if changes.contains(where: \.isRead) { header.info1 = .read }
        }
        if isDurableDelete { header.info2 = Info2(rawValue: header.info2.rawValue | Info2.durableDelete.rawValue) }
        switch condition {
        case .none: if isReplace { header.info3 = .createOrReplace }
        case .createOnly: header.info2 = Info2(rawValue: header.info2.rawValue | Info2.createOnly.rawValue)
        case .updateOnly: header.info3 = isReplace ? .replaceOnly : .updateOnly
        case .generation(let sent):
            header.info2 = Info2(rawValue: header.info2.rawValue | Info2.generation.rawValue)
            header.generation = sent
            if isReplace { header.info3 = .createOrReplace }
        }
        output.truncate(to: 0)
        var encoder = RequestEncoder(output)
        encoder.begin(header)
        encoder.field(.namespace, "test")
        encoder.field(digest)
        for change in changes { change.encode(to: &encoder) }
        encoder.end()
        return UnsafeRawBufferPointer(rebasing: output.bytes[FrameHeader.byteCount...])
    }

    /// For people.
    var text: String {
        let words: [String] = [
            kind == .change ? (removesAll ? "remove all bins" : "write \(number)") : "\(kind)", isReplace ? "replacing" : "",
            condition == .none ? "" : "\(condition)", isDurableDelete ? "durably" : "",
        ]
        return words.filter { !$0.isEmpty }.joined(separator: " ")
    }
}

/// An answer, copied out.
struct ClientAnswer {
    let result: ResultCode
    let generation: UInt32
    var content = Content()

    init(_ frame: UnsafeRawBufferPointer) {
        guard let view = AnswerView(UnsafeRawBufferPointer(rebasing: frame[FrameHeader.byteCount...])) else {
            preconditionFailure("an answer that cannot be parsed")
        }
        result = ResultCode(rawValue: view.header.resultCode)
        generation = view.header.generation
        var operations = view.operations
        while let bin = operations.next() {
            content.set(Bin(name: bin.name.text, type: bin.particleType, value: Array(bin.value)))
        }
    }
}
