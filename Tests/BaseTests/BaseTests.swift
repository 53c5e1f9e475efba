import Base
import Glibc
import TestSupport
import Testing

@Suite struct DigestTests {
    /// From the protocol's golden vectors: the partition is the first two bytes, little-endian, modulo 4096.
    @Test func partitionOfKnownDigests() {
        let known: [(String, UInt16)] = [
            ("b747f5854d0b33259928d0cfab7fad81d6abfbf6", 1975), ("b7f4b83889e2da67de683e1df6919a1eacc446c8", 1207),
            ("50149955959c2fef0a83613ae80c78bb9c96b269", 1104), ("ff31c926fbef445648ce63ca72a698a5473425c1", 511),
        ]
        for (text, partition) in known {
            let digest = Digest(hex: text)
            #expect(digest.partition.number == partition)
            #expect(digest.description == text)
        }
    }

    @Test func orderIsThatOfTheBytes() {
        var random = SeededRandom(seed: 7)
        for _ in 0..<1000 {
            let left = Digest.random(&random)
            let right = Digest.random(&random)
            let leftBytes = (0..<20).map { left[$0] }
            let rightBytes = (0..<20).map { right[$0] }
            #expect((left < right) == leftBytes.lexicographicallyPrecedes(rightBytes))
            let block = Block([UInt8](repeating: 0, count: 20))
            left.store(to: block.bytes.baseAddress!)
            #expect(Array(block.view) == leftBytes)
            #expect(Digest(block.view.baseAddress!) == left)
        }
    }
}

@Suite struct BytesTests {
    @Test func checksumOfKnownText() {
        // The check value of CRC-32C.
        #expect(crc32c(Block(Array("123456789".utf8)).view) == 0xE306_9283)
        #expect(crc32c(Block([]).view) == 0)
        #expect(crc32c(Block([UInt8](repeating: 0, count: 32)).view) == 0x8A91_36AA)
    }

    /// FNV-1a's own vectors, and the sums with another beginning and with bytes above 127. They stand in files.
    @Test func hashOfKnownText() {
        #expect(fnv1a("".utf8) == 0xCBF2_9CE4_8422_2325)
        #expect(fnv1a("a".utf8) == 0xAF63_DC4C_8601_EC8C)
        #expect(fnv1a("foobar".utf8) == 0x8594_4171_F739_67E8)
        #expect(fnv1a("bar".utf8, from: fnv1a("foo".utf8)) == fnv1a("foobar".utf8), "it goes on")
        #expect(fnv1a("a".utf8, from: 0) == 0x61 * 0x100_0000_01B3)
        #expect(fnv1a([0xFF, 0x80] as [UInt8]) == 0x0A9A_2607_B6F6_E56A)
    }

    @Test func integersInBothOrders() {
        let block = Block([UInt8](repeating: 0, count: 16))
        let base = block.bytes.baseAddress!
        base.storeBigEndian(UInt32(0x0102_0304), at: 1)
        base.storeLittleEndian(UInt64(0x0102_0304_0506_0708), at: 5)
        #expect(hex(block.view) == "00010203040807060504030201000000")
        #expect(UnsafeRawPointer(base).bigEndian(UInt32.self, at: 1) == 0x0102_0304)
        #expect(UnsafeRawPointer(base).littleEndian(UInt64.self, at: 5) == 0x0102_0304_0506_0708)
    }

    @Test func equalBytes() {
        let left = Block(Array(0..<100)).view
        #expect(left.equals(Block(Array(0..<100)).view))
        #expect(!left.equals(Block(Array(0..<99)).view))
        var other = [UInt8](0..<100)
        other[99] = 0
        #expect(!left.equals(Block(other).view))
        #expect(UnsafeRawBufferPointer(start: nil, count: 0).equals(Block([]).view))
    }
}

@Suite struct OutputBufferTests {
    @Test func growsAndKeepsItsContent() {
        let buffer = OutputBuffer(capacity: 1)
        var expected: [UInt8] = []
        for number in 0..<1000 {
            let piece = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: number % 17)
            buffer.append(Block(piece).view)
            expected += piece
        }
        #expect(Array(buffer.bytes) == expected)
        buffer.truncate(to: 10)
        #expect(Array(buffer.bytes) == Array(expected[..<10]))
    }
}

@Suite struct RandomTests {
    /// Histories are replayed by their seeds: the stream of a seed never changes.
    @Test func streamOfASeed() {
        var random = SeededRandom(seed: 42)
        let first = (0..<3).map { _ in random.next() }
        var again = SeededRandom(seed: 42)
        #expect(first == (0..<3).map { _ in again.next() })
        #expect(first == [1_546_998_764_402_558_742, 6_990_951_692_964_543_102, 12_544_586_762_248_559_009])
    }
}

@Suite struct MailboxTests {
    private final class Wakes: @unchecked Sendable {
        private var ends: [Int32] = [0, 0]
        init() { pipe(&ends) }
        func wake() {
            var byte: UInt8 = 1
            _ = write(ends[1], &byte, 1)
        }
        func wait() {
            var byte: UInt8 = 0
            _ = read(ends[0], &byte, 1)
        }
    }
    private struct Poster: @unchecked Sendable {
        let mailbox: Mailbox
        let letters: UnsafeMutablePointer<Letter>
        let count: Int
    }

    /// Several threads post, one receives and sleeps in between: nothing is lost and each poster's order is
    /// kept.
    @Test func lettersOfSeveralThreads() {
        let posters = 3
        let count = 100_000
        let wakes = Wakes()
        let mailbox = Mailbox { wakes.wake() }
        var threads: [pthread_t] = []
        var memory: [UnsafeMutablePointer<Letter>] = []
        for poster in 0..<posters {
            let letters = UnsafeMutablePointer<Letter>.allocate(capacity: count)
            for number in 0..<count {
                (letters + number).initialize(to: Letter(kind: UInt32(poster), payload: UInt64(number)))
            }
            memory.append(letters)
            let job = UnsafeMutablePointer<Poster>.allocate(capacity: 1)
            job.initialize(to: Poster(mailbox: mailbox, letters: letters, count: count))
            var thread = pthread_t()
            pthread_create(&thread, nil, { pointer in
                let job = pointer!.assumingMemoryBound(to: Poster.self)
                for number in 0..<job.pointee.count { job.pointee.mailbox.post(job.pointee.letters + number) }
                job.deinitialize(count: 1)
                job.deallocate()
                return nil
            }, job)
            threads.append(thread)
        }
        var next = [UInt64](repeating: 0, count: posters)
        var received = 0
        var isOrdered = true
        while received < posters * count {
            if mailbox.prepareToSleep() { wakes.wait() }
            mailbox.woke()
            mailbox.take { letter in
                isOrdered = isOrdered && letter.pointee.payload == next[Int(letter.pointee.kind)]
                next[Int(letter.pointee.kind)] += 1
                received += 1
            }
        }
        for thread in threads { pthread_join(thread, nil) }
        for letters in memory { letters.deallocate() }
        #expect(isOrdered && next == [UInt64](repeating: UInt64(count), count: posters))
    }
}
