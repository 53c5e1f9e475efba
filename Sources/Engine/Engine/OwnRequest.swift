// Requests of the engine's own: touches after reads, deletes of sweeps, writes of queries. They run through the machines of
// clients' requests; nobody waits for an answer.
internal import Base
internal import Wire

/// The bytes of such a request for one record, made once: a digest field, and one operation without name or value if there
/// is one. Reactor's thread only.
final class OwnRequest {
    private let bytes: UnsafeMutableRawPointer
    private let byteCount: Int
    private let view: UnsafeMutablePointer<RequestView>
    private static let operationSize = 8

    private init(_ flags: Info2, operation code: UInt8?) {
        byteCount = MessageHeader.byteCount + 5 + Digest.byteCount + (code == nil ? 0 : OwnRequest.operationSize)
        view = .allocate(capacity: 1)
        view.initialize(to: .empty)
        bytes = .allocate(byteCount: byteCount, alignment: 16)
        bytes.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
        bytes.storeBytes(of: UInt8(MessageHeader.byteCount), as: UInt8.self)
        bytes.storeBytes(of: flags.rawValue, toByteOffset: 2, as: UInt8.self)
        bytes.storeBigEndian(UInt16(1), at: 18)
        bytes.storeBigEndian(UInt16(code == nil ? 0 : 1), at: 20)
        let field = bytes + MessageHeader.byteCount
        field.storeBigEndian(UInt32(1 + Digest.byteCount))
        field.storeBytes(of: FieldNumber.digest.rawValue, toByteOffset: 4, as: UInt8.self)
        guard let code else { return }
        let operation = field + 5 + Digest.byteCount
        operation.storeBigEndian(UInt32(4))
        operation.storeBytes(of: code, toByteOffset: 4, as: UInt8.self)
    }

    deinit {
        bytes.deallocate()
        view.deallocate()
    }

    static func touch() -> OwnRequest { OwnRequest(.write, operation: OperationCode.touch) }

    static func delete() -> OwnRequest { OwnRequest([.write, .delete], operation: nil) }

    /// The request for `digest`, which is to live `timeToLive` seconds if it is a touch; valid until the next call.
    func request(digest: Digest, timeToLive: UInt32 = 0) -> RequestPointer {
        bytes.storeBigEndian(timeToLive, at: 10)
        digest.store(to: bytes + MessageHeader.byteCount + 5)
        guard case .request(let request) = RequestView.parse(UnsafeRawBufferPointer(start: bytes, count: byteCount)) else {
            preconditionFailure("the template is a request")
        }
        view.pointee = request
        return UnsafePointer(view)
    }
}

extension NamespaceShard {
    /// Runs the write in `slot`, taken from the pool for it. False: it has to wait, and gives its slot back when it ends.
    @discardableResult
    func runOwn(_ slot: SlotPointer, _ now: TurnTime) -> Bool {
        guard start(slot, now: now) == .suspended else {
            scratch.slots.giveBack(slot)
            return true
        }
        scratch.slots.keepBody(slot)
        scratch.parkResults(slot)
        return false
    }
}
