// From the bytes of a connection to its answers. Frames that stand in the buffer together are parsed
// together, so that the memory their look-ups will touch is fetched for all of them at once; then they are
// executed in order.
package import Base
package import Engine
internal import Wire

/// Answers info requests. Reactor's thread.
package protocol InfoResponder: AnyObject {
    /// Writes the answers to the lines of `body` as one text (without frame header) to `output`. False: more lines, or a
    /// longer answer, than one request may have.
    func answer(
        _ body: UnsafeRawBufferPointer, connection: UInt64, kind: UInt8, to output: OutputBuffer
    ) -> Bool

    /// Whether the answer comes later, sent by somebody else: the bytes were copied.
    func defers(_ body: UnsafeRawBufferPointer, connection: UInt64, kind: UInt8) -> Bool
}

extension InfoResponder {
    /// Answers at once.
    package func defers(_ body: UnsafeRawBufferPointer, connection: UInt64, kind: UInt8) -> Bool { false }
}

/// What the connection does next.
package enum FrameVerdict: Sendable {
    /// At least so many bytes, counted from the frame's start, are needed.
    case needBytes(Int)
    /// The turn's share is used up; whole frames may be left.
    case more
    /// A late answer is outstanding.
    case suspended
    /// The peer does not speak the protocol, or this server will not serve it: close. One sentence for the
    /// log.
    case close(String)
}

/// Executes the frames of one reactor's connections. Reactor's thread only.
package final class FrameExecutor {
    private struct Parsed: BitwiseCopyable {
        var request: RequestView
        /// Number of the namespace, -1 if there is none of that name.
        var namespace: Int
        var byteCount: Int
        var type: UInt8
        var isMalformed: Bool
        /// A request for one record of a namespace that is there.
        var isPoint: Bool
        /// A request for many records: its answer is a stream.
        var isBatch: Bool
    }
    /// A connection's first request, looked at before its turn to have its memory fetched.
    private struct Preview: BitwiseCopyable {
        var digest: Digest
        var namespace: Int
        var isWrite: Bool
    }
    private static let groupMax = 16
    /// The others get their turn after so much work on expressions: about 100 us.
    private static let expressionWorkPerTurnMax = 32_768
    private let group: UnsafeMutablePointer<Parsed>
    private let previews: UnsafeMutablePointer<Preview>
    /// Nil while the node starts: data requests answer 11 until it is there.
    package var engine: EngineShard? {
        didSet { shard = engine.map { .passUnretained($0) } }
    }
    /// The same, to be used without counting references.
    private var shard: Unmanaged<EngineShard>?
    private let info: any InfoResponder
    private let compression = Compression()
    private let longInflation = LongInflation()
    /// Admin connections serve info and security messages only.
    private let adminKind: UInt8
    /// The request at hand, for the report of a crash: word 0 its address (0 for none), word 1 its bytes.
    package let atHand: UnsafeMutablePointer<UInt64>
    /// Messages that could not be parsed; they answered 4.
    package private(set) var malformedRequests: UInt64 = 0

    package init(info: any InfoResponder, adminKind: UInt8) {
        self.info = info
        self.adminKind = adminKind
        precondition(MemoryLayout<Parsed>.offset(of: \.request) == 0, "a frame's address is its request's")
        group = .allocate(capacity: FrameExecutor.groupMax)
        previews = .allocate(capacity: Limits.connectionsReceivedAheadMax)
        atHand = .allocate(capacity: 2)
        atHand.initialize(repeating: 0, count: 2)
    }

    deinit {
        group.deallocate()
        previews.deallocate()
        atHand.deallocate()
    }

    /// Executes whole frames at the start of `bytes`. Returns how many bytes they were, and what next.
    package func receive(
        connection: UInt64, kind: UInt8, _ bytes: UnsafeRawBufferPointer, arrived: Instant, output: OutputBuffer
    ) -> (consumed: Int, verdict: FrameVerdict) {
        var consumed = 0
        var requests = 0
        let workBefore = expressionWork
        defer { atHand[0] = 0 }
        while requests < Limits.requestsPerTurnMax, consumed < Limits.bytesPerTurnMax,
            output.count < Limits.answerBytesPerTurnMax {
            let (count, stop) = parseGroup(UnsafeRawBufferPointer(rebasing: bytes[consumed...]))
            if count > 1 { prefetch(count) }
            for number in 0..<count {
                if output.count >= Limits.answerBytesPerTurnMax { return (consumed, .more) }
                let frame = group + number
                let body = UnsafeRawBufferPointer(
                    rebasing: bytes[(consumed + FrameHeader.byteCount)..<(consumed + frame.pointee.byteCount)])
                consumed += frame.pointee.byteCount
                requests += 1
                // Read now: a compressed frame becomes the message inside it.
                let isLong = frame.pointee.type == FrameType.info.rawValue
                    || frame.pointee.type == FrameType.compressed.rawValue || frame.pointee.isBatch
                switch execute(frame, body, connection: connection, kind: kind, arrived: arrived, output) {
                case .answered:
                    if isLong || expressionWork - workBefore > FrameExecutor.expressionWorkPerTurnMax {
                        return (consumed, .more)
                    }
                case .unfinished: return (consumed - frame.pointee.byteCount, .more)
                case .suspended: return (consumed, .suspended)
                case .refused(let reason): return (consumed, .close(reason))
                }
            }
            if let stop { return (consumed, stop) }
        }
        return (consumed, .more)
    }

    /// Parses up to 16 whole frames; `stop` says why there are no more, nil if there may be.
    private func parseGroup(_ bytes: UnsafeRawBufferPointer) -> (count: Int, stop: FrameVerdict?) {
        var count = 0
        var offset = 0
        while count < FrameExecutor.groupMax {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
            switch FrameHeader.parse(rest) {
            case .incomplete: return (count, .needBytes(FrameHeader.byteCount))
            case .refused(let reason): return (count, .close(reason.sentence))
            case .frame(let header):
                let byteCount = FrameHeader.byteCount + header.bodySize
                if header.type <= FrameType.security.rawValue, header.bodySize > Limits.infoRequestSizeMax {
                    return (count, .close("an info or security request of \(header.bodySize) bytes"))
                }
                guard rest.count >= byteCount else { return (count, .needBytes(byteCount)) }
                parse(
                    group + count, header.type,
                    UnsafeRawBufferPointer(rebasing: rest[FrameHeader.byteCount..<byteCount]), byteCount)
                offset += byteCount
                count += 1
            }
        }
        return (count, nil)
    }

    private func parse(
        _ frame: UnsafeMutablePointer<Parsed>, _ type: UInt8, _ body: UnsafeRawBufferPointer, _ byteCount: Int
    ) {
        frame.pointee.type = type
        frame.pointee.byteCount = byteCount
        frame.pointee.isMalformed = false
        frame.pointee.namespace = -1
        frame.pointee.isPoint = false
        frame.pointee.isBatch = false
        guard type == FrameType.message.rawValue else { return }
        defer { frame.pointee.isBatch = frame.pointee.request.header.info1.contains(.batch) }
        guard RequestView.parse(body, into: &frame.pointee.request) else {
            if body.count < MessageHeader.byteCount { frame.pointee.request = .empty }
            frame.pointee.isMalformed = true
            return
        }
        guard let shard else { return }
        let name = frame.pointee.request.namespace
        frame.pointee.namespace = shard._withUnsafeGuaranteedRef { $0.number(ofNamespace: name) }
        frame.pointee.isPoint = frame.pointee.namespace >= 0 && frame.pointee.request.has(.digest)
    }

    /// Three passes over the group, one for each dependent line: bucket, entry, image.
    private func prefetch(_ count: Int) {
        guard let shard else { return }
        shard._withUnsafeGuaranteedRef { engine in
            for stage in 0..<3 {
                for number in 0..<count where group[number].isPoint {
                    engine.prefetch(
                        group[number].request.digest, isWrite: group[number].request.header.info2.contains(.write),
                        namespace: group[number].namespace, stage: stage)
                }
            }
        }
    }

    // ---- Several connections ----

    /// Looks at the first request in `bytes`, which `receive` will get in this turn after those of other connections, and
    /// starts to fetch its bucket. `place` is below
    /// `Limits.connectionsReceivedAheadMax`.
    package func preview(_ bytes: UnsafeRawBufferPointer, place: Int) {
        previews[place].namespace = -1
        guard let shard, case .frame(let header) = FrameHeader.parse(bytes),
            header.type == FrameType.message.rawValue, bytes.count >= FrameHeader.byteCount + header.bodySize
        else { return }
        let body = UnsafeRawBufferPointer(rebasing: bytes[FrameHeader.byteCount..<(FrameHeader.byteCount + header.bodySize)])
        guard case .request(let request) = RequestView.parse(body), request.has(.digest) else { return }
        previews[place] = Preview(
            digest: request.digest,
            namespace: shard._withUnsafeGuaranteedRef { $0.number(ofNamespace: request.namespace) },
            isWrite: request.header.info2.contains(.write))
        prefetch(place: place, stage: 0)
    }

    /// The next stage for a previewed request: 1 its entry, 2 its image.
    package func prefetch(place: Int, stage: Int) {
        let preview = previews[place]
        guard let shard, preview.namespace >= 0 else { return }
        shard._withUnsafeGuaranteedRef {
            $0.prefetch(preview.digest, isWrite: preview.isWrite, namespace: preview.namespace, stage: stage)
        }
    }

    private enum Outcome {
        case answered, suspended
        /// Nothing is answered yet: the same bytes come again.
        case unfinished
        case refused(String)
    }

    private func execute(
        _ frame: UnsafeMutablePointer<Parsed>, _ body: UnsafeRawBufferPointer, connection: UInt64, kind: UInt8,
        arrived: Instant, _ output: OutputBuffer
    ) -> Outcome {
        atHand[0] = UInt64(UInt(bitPattern: body.baseAddress))
        atHand[1] = UInt64(body.count)
        switch frame.pointee.type {
        case FrameType.message.rawValue:
            guard kind != adminKind else { return .refused("a data request on the admin port") }
            return executeMessage(frame, connection, arrived, output)
        case FrameType.info.rawValue:
            return answerInfo(body, connection, kind, output)
        case FrameType.security.rawValue:
            AnswerWriter.appendSecurity(result: .securityNotEnabled, to: output)
            return .answered
        case FrameType.compressed.rawValue:
            guard kind != adminKind else { return .refused("a data request on the admin port") }
            return executeCompressed(frame, body, connection, arrived, output)
        default: return .refused("a frame of type \(frame.pointee.type)")
        }
    }

    private func executeMessage(
        _ frame: UnsafeMutablePointer<Parsed>, _ connection: UInt64, _ arrived: Instant, _ output: OutputBuffer
    ) -> Outcome {
        guard let shard, !frame.pointee.isMalformed else {
            if frame.pointee.isMalformed { malformedRequests += 1 }
            let result: ResultCode = frame.pointee.isMalformed ? .parameter : .unavailable
            if frame.pointee.isBatch {
                AnswerWriter.appendLast(result: result, to: output)
            } else {
                AnswerWriter.appendResult(result, to: output)
            }
            return .answered
        }
        let start = output.count
        let request = UnsafeRawPointer(frame).assumingMemoryBound(to: RequestView.self)
        let namespace = frame.pointee.namespace
        let progress = shard._withUnsafeGuaranteedRef {
            $0.execute(request, namespace: namespace, connection: connection, arrived: arrived, output: output)
        }
        // What a batch has answered so far stands in the output, too.
        if frame.pointee.request.header.info1.contains(.compressResponse), output.count > start {
            compression.deflateFrames(output, from: start)
        }
        return progress == .answered ? .answered : .suspended
    }

    /// A connection is gone; nothing of it will come any more.
    package func connectionClosed(_ connection: UInt64) {
        if longInflation.connection == connection { longInflation.end() }
    }

    /// What expressions have taken so far.
    private var expressionWork: Int { shard?._withUnsafeGuaranteedRef { $0.expressionWork } ?? 0 }

    /// Compresses the frames of a late answer, alone in `output`.
    package func compress(_ output: OutputBuffer) { compression.deflateFrames(output, from: 0) }

    private func executeCompressed(
        _ frame: UnsafeMutablePointer<Parsed>, _ body: UnsafeRawBufferPointer, _ connection: UInt64,
        _ arrived: Instant, _ output: OutputBuffer
    ) -> Outcome {
        guard let claimed = Compression.claimed(body), claimed > LongInflation.smallSizeMax else {
            defer { compression.forget() }
            return executeInflated(frame, compression.inflate(body), connection, arrived, output)
        }
        // Answers of this connection may hold its bytes back: nothing else is under way when this begins.
        if longInflation.connection == nil, output.count == 0 { longInflation.begin(connection) }
        guard longInflation.connection == connection else { return .unfinished }
        switch longInflation.step(body, claimed: claimed) {
        case .more: return .unfinished
        case .whole(let whole):
            defer { longInflation.end() }
            return executeInflated(frame, whole, connection, arrived, output)
        }
    }

    private func executeInflated(
        _ frame: UnsafeMutablePointer<Parsed>, _ whole: UnsafeRawBufferPointer?, _ connection: UInt64,
        _ arrived: Instant, _ output: OutputBuffer
    ) -> Outcome {
        guard let whole, case .frame(let header) = FrameHeader.parse(whole),
            header.type == FrameType.message.rawValue, whole.count == FrameHeader.byteCount + header.bodySize
        else { return .refused("a compressed frame that does not hold one whole message") }
        parse(
            frame, header.type, UnsafeRawBufferPointer(rebasing: whole[FrameHeader.byteCount...]),
            frame.pointee.byteCount)
        return executeMessage(frame, connection, arrived, output)
    }

    private func answerInfo(
        _ body: UnsafeRawBufferPointer, _ connection: UInt64, _ kind: UInt8, _ output: OutputBuffer
    ) -> Outcome {
        if info.defers(body, connection: connection, kind: kind) { return .suspended }
        let start = output.count
        _ = output.reserve(FrameHeader.byteCount)
        output.commit(FrameHeader.byteCount)
        guard info.answer(body, connection: connection, kind: kind, to: output) else {
            output.truncate(to: start)
            return .refused("an info request that is too large, or asks for too much")
        }
        let size = output.count - start - FrameHeader.byteCount
        FrameHeader.write(type: .info, bodySize: size, to: output.mutableBytes.baseAddress! + start)
        return .answered
    }
}
