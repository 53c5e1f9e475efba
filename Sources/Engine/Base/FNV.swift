/// FNV-1a, 64 bits, of the bytes: the same in every process and version, so it may stand in files and messages. Pass an
/// earlier result as `hash` to go on. Good against accidents, not against people who choose the bytes.
@inlinable
package func fnv1a(_ bytes: some Sequence<UInt8>, from hash: UInt64 = 0xCBF2_9CE4_8422_2325) -> UInt64 {
    bytes.reduce(hash) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01B3 }
}
