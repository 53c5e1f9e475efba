// A blocking backend as the node runs it: on storage threads.
internal import Mount
internal import Storage

/// Wraps whatever the author's subject opens.
final class ThreadedSubject: ConformanceSubject {
    private static let threadCount = 3
    private static let queueMax = 1024
    private let inner: any ConformanceSubject

    init(_ inner: any ConformanceSubject) { self.inner = inner }

    var descriptor: BackendDescriptor { inner.descriptor }
    var capabilities: Capabilities { inner.capabilities.subtracting(.blocking) }
    var limits: BackendLimits { inner.limits }

    func make() throws(StorageError) -> any Backend { try threaded(try inner.make()) }

    func reopen(after ending: Ending) throws(StorageError) -> any Backend { try threaded(try inner.reopen(after: ending)) }

    func end() { inner.end() }

    func makeSmall() throws(StorageError) -> (any Backend)? {
        guard let small = try inner.makeSmall() else { return nil }
        return try threaded(small)
    }

    func advance() { inner.advance() }

    var crashesQuietly: Bool { true }

    private func threaded(_ backend: any Backend) throws(StorageError) -> any Backend {
        try ThreadedBackend(backend, threads: ThreadedSubject.threadCount, queueMax: ThreadedSubject.queueMax)
    }
}
