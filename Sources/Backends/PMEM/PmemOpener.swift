// The seam under persistent memory files: who opens them is the node, or a simulation.
public import Base

/// A file to be opened.
public struct PmemRequest: Sendable {
    /// Where it is.
    public let path: String
    /// Bytes that it is made with if it is not there; 0: it is not made.
    public let byteCount: Int
    /// It is only looked at: nothing is made, locked or stored.
    public let isLookedAt: Bool

    /// Joins the parts.
    public init(path: String, byteCount: Int, isLookedAt: Bool) {
        self.path = path
        self.byteCount = byteCount
        self.isLookedAt = isLookedAt
    }
}

/// An open file. It stays open as long as `region` lives, and locked, unless it is only looked at, until `unlock`.
public struct PmemFile: Sendable {
    /// All of its bytes, backed in full.
    public let region: any MemoryRegion
    /// What an operator should know of it, a sentence without its path; nil for nothing.
    public let note: String?
    /// Others may open the file from now on: nothing is stored in it any more. The end of `region` does the same.
    public let unlock: @Sendable () -> Void

    /// Joins the parts.
    public init(region: any MemoryRegion, note: String? = nil, unlock: @escaping @Sendable () -> Void) {
        self.region = region
        self.note = note
        self.unlock = unlock
    }
}

/// Why a file cannot be opened.
public struct PmemOpenError: Error, Hashable, Sendable {
    /// Goes on from the path: begins in lower case, ends without a full stop.
    public let sentence: String
    /// Nothing is at the path: the file is missing rather than wrong.
    public let isMissing: Bool

    /// Joins the parts.
    public init(_ sentence: String, isMissing: Bool = false) {
        self.sentence = sentence
        self.isMissing = isMissing
    }
}

/// Opens files of persistent memory, and makes them. Any thread but a reactor's; may block.
public protocol PmemOpener: Sendable {
    /// Opens one; unless it is only looked at, no other process, and no other path to the same file, can open it then. A
    /// file that is made reads as zero, has its size in full, and is there for good, when the call returns. Of a file that
    /// is there the size stays as it is.
    func open(_ request: PmemRequest) throws(PmemOpenError) -> PmemFile
}
