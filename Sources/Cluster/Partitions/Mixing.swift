// 64-bit mixing of our own, the same on every machine and in every build.

/// Spreads every bit of `value` over all bits; one to one.
@inline(__always)
func mixed(_ value: UInt64) -> UInt64 {
    var bits = value
    bits = (bits ^ bits >> 33) &* 0x9FB2_1C65_1E98_DF25
    bits = (bits ^ bits >> 29) &* 0xC6A4_A793_5BD1_E995
    return bits ^ bits >> 32
}

/// A hash of words, one behind the other.
struct WordHash {
    private(set) var value: UInt64 = 0x4150_5553_4D41_5031

    @inline(__always)
    mutating func add(_ word: UInt64) { value = mixed(value ^ word) &+ 0x9E37_79B9_7F4A_7C15 }

    mutating func add(_ text: String) {
        add(UInt64(text.utf8.count))
        for byte in text.utf8 { add(UInt64(byte)) }
    }
}

/// The different values among `values`, in the order of their first places, and which of them each is: a hash table that
/// goes by our own hash, so that nothing depends on the process.
func distinct<Value: Equatable>(
    _ values: [Value], hash: (Value) -> UInt64
) -> (values: [Value], numbers: [UInt16]) {
    precondition(values.count <= Int(UInt16.max))
    var size = 16
    while size < values.count * 2 { size *= 2 }
    var slots = [UInt16](repeating: .max, count: size)
    var found: [Value] = []
    var numbers: [UInt16] = []
    numbers.reserveCapacity(values.count)
    for value in values {
        if let last = numbers.last, found[Int(last)] == value {
            numbers.append(last)
            continue
        }
        var slot = Int(truncatingIfNeeded: hash(value) & UInt64(size - 1))
        while slots[slot] != .max, found[Int(slots[slot])] != value { slot = (slot + 1) & (size - 1) }
        if slots[slot] == .max {
            slots[slot] = UInt16(found.count)
            found.append(value)
        }
        numbers.append(slots[slot])
    }
    return (found, numbers)
}
