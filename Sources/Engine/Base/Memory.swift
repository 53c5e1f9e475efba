internal import CBase
internal import Glibc

/// Whether `count` bytes at both addresses are equal.
@inline(__always)
public func bytesEqual(_ left: UnsafeRawPointer, _ right: UnsafeRawPointer, _ count: Int) -> Bool {
    memcmp(left, right, count) == 0
}

/// The order of `count` bytes at both addresses, byte by byte: below zero, zero, above zero.
@inline(__always)
public func bytesOrder(_ left: UnsafeRawPointer, _ right: UnsafeRawPointer, _ count: Int) -> Int {
    Int(memcmp(left, right, count))
}

/// CRC32C (Castagnoli) of the bytes, in hardware where the processor has it. Pass an earlier result as `seed`
/// to go on.
public func crc32c(_ bytes: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
    apus_crc32c(seed, bytes.baseAddress, bytes.count)
}
