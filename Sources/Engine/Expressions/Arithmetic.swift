// Arithmetic of expressions. Integers wrap, as increments of bins do; what has no result (division of an integer by zero,
// a shift by a negative count, a float that is no integer's value) is unknown. Floats follow IEEE.
internal import Base
internal import Glibc

enum Arithmetic {
    /// Of two integers.
    static func integers(_ operation: UInt8, _ left: Int64, _ right: Int64) -> ExpressionValue {
        switch operation {
        case 20: return .integer(left &+ right)
        case 21: return .integer(left &- right)
        case 22: return .integer(left &* right)
        case 23: return right == 0 ? .unknown : .integer(left.dividedReportingOverflow(by: right).partialValue)
        case 26: return right == 0 ? .unknown : .integer(left.remainderReportingOverflow(dividingBy: right).partialValue)
        case 32: return .integer(left & right)
        case 33: return .integer(left | right)
        case 34: return .integer(left ^ right)
        case 36, 37, 38: return shifted(operation, left, right)
        case 50: return .integer(min(left, right))
        case 51: return .integer(max(left, right))
        default: preconditionFailure("operation \(operation) takes no two integers")
        }
    }

    /// Shifts by 64 and more leave nothing but the sign of an arithmetic one.
    private static func shifted(_ operation: UInt8, _ value: Int64, _ count: Int64) -> ExpressionValue {
        guard count >= 0 else { return .unknown }
        switch operation {
        case 36: return .integer(value << count)
        case 37: return ExpressionValue(.integer, bits: UInt64(bitPattern: value) >> UInt64(count))
        default: return .integer(value >> count)
        }
    }

    /// Of one integer.
    static func integer(_ operation: UInt8, _ value: Int64) -> ExpressionValue {
        switch operation {
        case 21: return .integer(0 &- value)
        case 23: return value == 0 ? .unknown : .integer(1 / value)
        case 27: return .integer(value < 0 ? 0 &- value : value)
        case 31: return .float(Double(value))
        case 35: return .integer(~value)
        case 39: return .integer(Int64(value.nonzeroBitCount))
        default: preconditionFailure("operation \(operation) takes no single integer")
        }
    }

    /// Of two floats.
    static func floats(_ operation: UInt8, _ left: Double, _ right: Double) -> ExpressionValue {
        switch operation {
        case 20: return .float(left + right)
        case 21: return .float(left - right)
        case 22: return .float(left * right)
        case 23: return .float(left / right)
        case 24: return .float(pow(left, right))
        case 25: return .float(log(left) / log(right))
        case 50: return .float(right < left ? right : left)
        case 51: return .float(right > left ? right : left)
        default: preconditionFailure("operation \(operation) takes no two floats")
        }
    }

    /// Of one float.
    static func float(_ operation: UInt8, _ value: Double) -> ExpressionValue {
        switch operation {
        case 21: return .float(-value)
        case 23: return .float(1 / value)
        case 27: return .float(value.magnitude)
        case 28: return .float(floor(value))
        case 29: return .float(ceil(value))
        case 30:
            // Towards zero.
            guard let integer = Int64(exactly: trunc(value)) else { return .unknown }
            return .integer(integer)
        default: preconditionFailure("operation \(operation) takes no single float")
        }
    }

    /// The index of the first bit that is `bit`, from the left (40) or from the right (41); the most significant bit has
    /// index 0. -1 if there is none.
    static func scan(_ operation: UInt8, _ value: Int64, for bit: Bool) -> ExpressionValue {
        let searched = bit ? value : ~value
        guard searched != 0 else { return .integer(-1) }
        return .integer(Int64(operation == 40 ? searched.leadingZeroBitCount : 63 - searched.trailingZeroBitCount))
    }
}
