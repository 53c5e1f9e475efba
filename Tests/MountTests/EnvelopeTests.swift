import Base
import Storage
import TestSupport
import Testing

/// The envelope's bytes as docs/formats.md says; the checksum was computed by another program.
@Suite struct EnvelopeTests {
    private let digest = Digest(hex: "0102030405060708090a0b0c0d0e0f1011121314")
    private let golden = bytes(hex: "23000020" + "0965261b" + "0102030405060708090a0b0c0d0e0f1011121314" + "7061796c6f6164")

    /// The seven bytes "payload" in their envelope.
    private func sealed() -> [UInt8] {
        var image = [UInt8](repeating: 0xEE, count: Envelope.byteCount) + Array("payload".utf8)
        image.withUnsafeMutableBytes { Envelope.seal($0, digest: digest) }
        return image
    }

    private func fits(_ image: [UInt8]) -> Bool { Envelope.fits(Block(image).view, digest: digest) }

    @Test func bytesOfTheFormat() {
        #expect(hex(sealed()) == hex(golden))
        let block = Block(golden)
        #expect(Envelope.byteCount(at: block.view.baseAddress!) == 35 && Envelope.storedByteCount(35) == 48)
        #expect(Envelope.digest(at: block.view.baseAddress!) == digest)
        #expect(Envelope.fits(block.view, digest: digest) && Envelope.checksumFits(block.view))
        withExtendedLifetime(block) {}
    }

    /// Formats and flags that are not known do not fit, nor do other sizes and other digests.
    @Test func whatDoesNotFit() {
        for top in UInt8.min...UInt8.max where top != 0x20 {
            var image = golden
            image[3] = top
            #expect(!fits(image), "top byte \(top)")
            let block = Block(image)
            #expect(Envelope.byteCount(at: block.view.baseAddress!) == 35, "top byte \(top)")
            withExtendedLifetime(block) {}
        }
        for count in 0..<golden.count { #expect(!fits(Array(golden[..<count])), "\(count) bytes") }
        #expect(!fits(golden + [0]))
        #expect(!Envelope.fits(Block(golden).view, digest: Digest(low: 0, middle: 0, high: 0)))
    }

    /// Every byte behind the checksum is under it.
    @Test func anyChangedByteIsSeen() {
        for place in 4..<golden.count {
            var image = golden
            image[place] ^= 0x10
            #expect(!Envelope.checksumFits(Block(image).view), "byte \(place)")
        }
    }

    /// The largest byte count has all of its 24 bits.
    @Test func theLargestImage() {
        var image = [UInt8](repeating: 1, count: Envelope.imageSizeMax)
        image.withUnsafeMutableBytes { Envelope.seal($0, digest: digest) }
        #expect(image[..<4] == [0xFF, 0xFF, 0xFF, 0x20])
        image.withUnsafeBytes { #expect(Envelope.fits($0, digest: digest) && Envelope.checksumFits($0)) }
    }
}
