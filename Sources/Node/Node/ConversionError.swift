/// Why a conversion cannot go on: a sentence for the operator.
struct ConversionError: Error {
    let message: String
    init(_ message: String) { self.message = message }
}
