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
