internal import Base

/// An object that travels between reactors as the payload of its own letter: on its way it belongs to nobody else.
/// Subclassed.
class PostedObject {
    private let letter: UnsafeMutablePointer<Letter>

    init() {
        letter = .allocate(capacity: 1)
        letter.initialize(to: Letter(kind: LetterKind.end))
    }

    deinit { letter.deallocate() }

    /// Sends it to a reactor as a letter of `kind`.
    final func post(_ kind: UInt32, to reactor: Int, _ shell: any EngineShell) {
        letter.pointee.kind = kind
        letter.pointee.payload = UInt64(UInt(bitPattern: Unmanaged.passRetained(self).toOpaque()))
        shell.post(letter, to: reactor)
    }

    /// What a letter has brought; it was posted as a `Self`.
    static func take(_ letter: UnsafeMutablePointer<Letter>) -> Self {
        Unmanaged<Self>.fromOpaque(UnsafeRawPointer(bitPattern: UInt(letter.pointee.payload))!).takeRetainedValue()
    }
}
