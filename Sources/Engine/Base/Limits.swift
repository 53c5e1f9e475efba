/// Every limit of the product in one place. Figures are those of the client protocol unless a comment says
/// otherwise.
public enum Limits {
    /// Largest body of one protocol frame in bytes; a larger one closes the connection.
    @inlinable public static var frameBodySizeMax: Int { 128 << 20 }
    /// Longest namespace name in bytes.
    @inlinable public static var namespaceNameSizeMax: Int { 31 }
    /// Most namespaces of one node.
    @inlinable public static var namespacesMax: Int { 32 }
    /// Longest set name in bytes.
    @inlinable public static var setNameSizeMax: Int { 63 }
    /// Most sets of one namespace; set ids are 1 to this.
    @inlinable public static var setsMax: Int { 4095 }
    /// Longest bin name in bytes.
    @inlinable public static var binNameSizeMax: Int { 15 }
    /// Most bins of one record.
    @inlinable public static var binsMax: Int { 32_767 }
    /// Most operations of one request.
    @inlinable public static var operationsMax: Int { 32_768 }
    /// Largest record in bytes that `max-record-size` may allow.
    @inlinable public static var recordSizeCeiling: Int { 8 << 20 }
    /// Default of `max-record-size` in bytes.
    @inlinable public static var recordSizeDefault: Int { 1 << 20 }
    /// Longest time to live in seconds: ten years.
    public static let timeToLiveSecondsMax: UInt32 = 315_360_000
    /// Default of `transaction-pending-limit`: waiters behind one claimed record.
    @inlinable public static var pendingLimitDefault: Int { 20 }
    /// Longest info command name in bytes.
    @inlinable public static var infoNameSizeMax: Int { 31 }
    /// Connections to the admin port.
    @inlinable public static var adminConnectionsMax: Int { 100 }
    /// Requests of one connection executed in one turn (ours).
    @inlinable public static var requestsPerTurnMax: Int { 64 }
    /// Bytes of one connection executed in one turn (ours).
    @inlinable public static var bytesPerTurnMax: Int { 256 << 10 }
    /// Connections whose bytes are received before the first of them is executed (ours).
    @inlinable public static var connectionsReceivedAheadMax: Int { 16 }
    /// Bytes of answers to one connection after which its other requests wait for the next turn (ours).
    @inlinable public static var answerBytesPerTurnMax: Int { 1 << 20 }
    /// Bytes of a streamed answer that a client has not taken, above which nothing more is given to its socket (ours).
    @inlinable public static var unsentStreamSizeMax: Int { 256 << 10 }
    /// Long and background queries of a node at a time; one more is refused with 22 (ours).
    @inlinable public static var queriesMax: Int { 1024 }
    /// How long in milliseconds a write of a background query may wait for others that write to its record (ours).
    @inlinable public static var queryWriteMilliseconds: UInt64 { 1000 }
    /// Bytes of one part of a streamed answer; one larger record has a part of its own.
    @inlinable public static var streamPartSizeMax: Int { 128 << 10 }
    /// Rows of a batch that run in the turn that brought it (ours).
    @inlinable public static var batchRowsPerTurnMax: Int { 128 }
    /// Rows of a longer batch that run in one slice of background work (ours).
    @inlinable public static var batchRowsPerSliceMax: Int { 64 }
    /// Bytes of answers, and of rows and records that were read and written, after which a batch leaves the turn that
    /// brought it (ours).
    @inlinable public static var batchBytesPerTurnMax: Int { 256 << 10 }
    /// Rows of one batch that may wait for a device, another request or a replica at a time (ours).
    @inlinable public static var batchRowsUnderWayMax: Int { 256 }
    /// Bytes of records that such rows may be waiting for (ours).
    @inlinable public static var batchBytesUnderWayMax: Int { 4 << 20 }
    /// How long in milliseconds a batch that brings no timeout may take.
    @inlinable public static var batchTimeoutMilliseconds: UInt64 { 30_000 }
    /// Bytes that the operations of one request may answer together; above it the request is refused with 13 (ours).
    @inlinable public static var resultSizeMax: Int { 16 << 20 }
    /// What the expressions that the operations of one request carry may take together, as `Expression.workMax` counts it;
    /// above it the request is refused with 4 (ours).
    @inlinable public static var expressionWorkMax: Int { 2 << 20 }
    /// The same for one slice of a query, which looks at one record at least.
    @inlinable public static var expressionWorkPerSliceMax: Int { 16_384 }
    /// Bytes whose copying takes about as long as one unit of that (ours).
    @inlinable public static var bytesPerExpressionWork: Int { 16 }
    /// Bytes of one info or security request; a larger one closes the connection (ours).
    @inlinable public static var infoRequestSizeMax: Int { 2 << 20 }
    /// Lines of one info request, and bytes of its answer beyond which no further line is answered; above either the
    /// connection closes (ours).
    @inlinable public static var infoLinesMax: Int { 1000 }
    @inlinable public static var infoAnswerSizeMax: Int { 4 << 20 }
    /// Largest image in bytes that is built and copied while a partition lock is held (ours).
    @inlinable public static var lockedCopySizeMax: Int { 4096 }
    /// How long in milliseconds a request waits for a backend that is under pressure before it is refused (ours).
    @inlinable public static var overloadDelayMilliseconds: UInt64 { 100 }
    /// How often a read looks a record up again that has changed under it (ours).
    @inlinable public static var readAttemptsMax: Int { 8 }
    /// Images are measured and addressed in units of this many bytes (ours).
    @inlinable public static var imageUnitSize: Int { 16 }
}
