/// Every limit of the product in one place. Figures are those of the client protocol unless a comment says
/// otherwise.
public enum Limits {
    /// Largest body of one protocol frame in bytes; a larger one closes the connection.
    public static let frameBodySizeMax = 128 << 20
    /// Longest namespace name in bytes.
    public static let namespaceNameSizeMax = 31
    /// Most namespaces of one node.
    public static let namespacesMax = 32
    /// Longest set name in bytes.
    public static let setNameSizeMax = 63
    /// Most sets of one namespace; set ids are 1 to this.
    public static let setsMax = 4095
    /// Longest bin name in bytes.
    public static let binNameSizeMax = 15
    /// Most bins of one record.
    public static let binsMax = 32_767
    /// Most operations of one request.
    public static let operationsMax = 32_768
    /// Largest record in bytes that `max-record-size` may allow.
    public static let recordSizeCeiling = 8 << 20
    /// Default of `max-record-size` in bytes.
    public static let recordSizeDefault = 1 << 20
    /// Longest time to live in seconds: ten years.
    public static let timeToLiveSecondsMax: UInt32 = 315_360_000
    /// Default of `transaction-pending-limit`: waiters behind one claimed record.
    public static let pendingLimitDefault = 20
    /// Longest info command name in bytes.
    public static let infoNameSizeMax = 31
    /// Requests of one connection executed in one turn (ours).
    public static let requestsPerTurnMax = 64
    /// Bytes of one connection executed in one turn (ours).
    public static let bytesPerTurnMax = 256 << 10
    /// Bytes of answers to one connection after which its other requests wait for the next turn (ours).
    public static let answerBytesPerTurnMax = 1 << 20
    /// Largest image in bytes that is built and copied while a partition lock is held (ours).
    public static let lockedCopySizeMax = 4096
    /// Images are measured and addressed in units of this many bytes (ours).
    public static let imageUnitSize = 16
}
