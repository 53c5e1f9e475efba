import Assembly
import Base
import TestSupport
import Testing

private final class Echo: InfoResponder {
    func answer(_ body: UnsafeRawBufferPointer, connection: UInt64, kind: UInt8, to output: OutputBuffer) -> Bool {
        output.append(body)
        return true
    }
}

@Suite struct FrameExecutorTests {
    /// The protocol's golden read, as a compressed frame.
    private let compressed = bytes(
        hex: "02040000000000440000000000000049789c63626600014731080d07cc2f182022ac0c25a9c5252006634a6a6e"
            + "3e9021cab2ddfd6bab2fb7b1ea4c8d0be757d7af6dbcb6faf737001dcc1029")
    private let info = bytes(hex: "02010000000000056e6f64650a")
    private let security = bytes(hex: "0202000000000010" + String(repeating: "0", count: 32))

    /// How many of three equal frames one call executes.
    private func executed(_ frame: [UInt8]) -> Int {
        let executor = FrameExecutor(info: Echo(), adminKind: 1)
        let block = Block(frame + frame + frame)
        let (consumed, verdict) = executor.receive(
            connection: 1, kind: 0, block.view, arrived: Instant(nanoseconds: 0), output: OutputBuffer())
        if consumed < block.count {
            guard case .more = verdict else { return -1 }
        }
        return consumed / frame.count
    }

    /// Info and compressed frames can take long: the others get their turn after each of them.
    @Test func longFramesEndATurn() {
        #expect(executed(info) == 1)
        #expect(executed(compressed) == 1)
        #expect(executed(security) == 3)
    }
}

/// Large compressed frames take several turns.
@Suite struct LongInflationTests {
    /// A compressed frame with a message of `size` bytes of a field inside, as stored blocks.
    private func large(_ size: Int) -> [UInt8] {
        func number(_ value: Int, _ byteCount: Int) -> [UInt8] {
            (0..<byteCount).map { UInt8(truncatingIfNeeded: value >> (8 * (byteCount - 1 - $0))) }
        }
        let message = [22, 1] + [UInt8](repeating: 0, count: 17) + [1, 0, 0] + number(size + 1, 4) + [50]
            + [UInt8](repeating: 7, count: size)
        let inner = [2, 3] + number(message.count, 6) + message
        var stream: [UInt8] = [0x78, 0x01]
        for start in stride(from: 0, to: inner.count, by: 65_535) {
            let end = min(start + 65_535, inner.count)
            let count = end - start
            let low = [UInt8(truncatingIfNeeded: count), UInt8(truncatingIfNeeded: count >> 8)]
            stream += [end == inner.count ? 1 : 0] + low + low.map { ~$0 } + inner[start..<end]
        }
        var (a, b) = (1, 0)
        for byte in inner {
            a = (a + Int(byte)) % 65_521
            b = (b + a) % 65_521
        }
        stream += number(b << 16 | a, 4)
        return [2, 4] + number(8 + stream.count, 6) + number(inner.count, 8) + stream
    }

    private func receive(
        _ executor: FrameExecutor, _ connection: UInt64, _ frame: [UInt8], _ output: OutputBuffer
    ) -> (consumed: Int, verdict: FrameVerdict) {
        // Other memory each time, as a connection's buffer may have moved.
        executor.receive(
            connection: connection, kind: 0, Block(frame).view, arrived: Instant(nanoseconds: 0), output: output)
    }

    @Test func othersGetTheirTurn() {
        let executor = FrameExecutor(info: Echo(), adminKind: 1)
        let frame = large(3 << 20)
        let security = bytes(hex: "0202000000000010" + String(repeating: "0", count: 32))
        let output = OutputBuffer()
        var turns = 0
        while turns < 1000 {
            turns += 1
            let (consumed, verdict) = receive(executor, 1, frame + security, output)
            guard case .more = verdict else {
                Issue.record("it goes on")
                return
            }
            if consumed > 0 {
                #expect(consumed == frame.count)
                break
            }
            #expect(output.count == 0)
            // A small frame of another connection is executed, a large one waits.
            let other = OutputBuffer()
            #expect(receive(executor, 2, security, other).consumed == security.count && other.count > 0)
            #expect(receive(executor, 3, frame, other).consumed == 0)
        }
        #expect(turns == 13, "256 KiB each")
        #expect(output.count > 0, "no engine is there: unavailable")
        #expect(receive(executor, 1, security, output).consumed == security.count)
    }

    @Test func aClosedConnectionMakesRoom() {
        let executor = FrameExecutor(info: Echo(), adminKind: 1)
        let frame = large(1 << 20)
        let output = OutputBuffer()
        #expect(receive(executor, 1, frame, output).consumed == 0)
        for _ in 0..<20 { #expect(receive(executor, 2, frame, output).consumed == 0) }
        executor.connectionClosed(1)
        var consumed = 0
        for _ in 0..<20 where consumed == 0 { consumed = receive(executor, 2, frame, output).consumed }
        #expect(consumed == frame.count && output.count > 0)
    }

    @Test func aDamagedFrameClosesItsConnection() {
        let executor = FrameExecutor(info: Echo(), adminKind: 1)
        var damaged = large(1 << 20)
        damaged[damaged.count - 1] ^= 1
        for frame in [damaged, large(1 << 20)] {
            var verdict = FrameVerdict.more
            for _ in 0..<20 {
                let (consumed, next) = receive(executor, 1, frame, OutputBuffer())
                verdict = next
                if consumed > 0 { break }
            }
            if case .close = verdict { #expect(frame == damaged) } else { #expect(frame != damaged) }
        }
    }
}
