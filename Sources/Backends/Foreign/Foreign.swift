// Storage plugins as shared objects: from a file to a `BackendDescriptor`. What a plugin is, `apus_backend.h` says.
internal import CBackend
public import Storage

/// How shared objects are opened: the three functions of the system's loader, which this module may not call itself.
/// They are called on the thread that calls `Foreign.load`.
public struct PluginLoader {
    /// What came of opening a file.
    public enum Outcome {
        /// It is open; the loader's handle.
        case library(UnsafeMutableRawPointer)
        /// It cannot be opened: the loader's reason.
        case refused(String)
    }

    /// Opens the shared object at a path.
    public let open: (String) -> Outcome
    /// The address of an exported symbol; nil if there is none of that name.
    public let symbol: (UnsafeMutableRawPointer, String) -> UnsafeMutableRawPointer?
    /// Gives a handle back; called only for files that are refused.
    public let close: (UnsafeMutableRawPointer) -> Void

    /// Joins the functions.
    public init(
        open: @escaping (String) -> Outcome,
        symbol: @escaping (UnsafeMutableRawPointer, String) -> UnsafeMutableRawPointer?,
        close: @escaping (UnsafeMutableRawPointer) -> Void
    ) {
        self.open = open
        self.symbol = symbol
        self.close = close
    }
}

/// Why a file is no plugin for this node: every reason that could be found.
public struct PluginError: Error, Sendable, Equatable {
    /// The file.
    public let path: String
    /// One sentence each; every one names the file.
    public let problems: [String]

    init(_ path: String, _ problems: [String]) {
        self.path = path
        self.problems = problems.map { "plugin '\(path)': \($0)" }
    }
}

/// Plugins as shared objects.
public enum Foreign {
    /// Opens the shared object at `path` and checks what it says about itself. May block (it reads a file, and runs
    /// what the file runs when it is loaded). Once a descriptor is returned, the shared object stays loaded for good.
    /// - Throws: `PluginError` with one sentence for each reason.
    public static func load(path: String, with loader: PluginLoader) throws(PluginError) -> BackendDescriptor {
        let library: UnsafeMutableRawPointer
        switch loader.open(path) {
        case .library(let handle): library = handle
        case .refused(let reason): throw PluginError(path, ["it cannot be opened: \(reason)"])
        }
        var reading = PluginReading()
        if let entry = entry(of: library, loader, &reading), let descriptor = reading.descriptor(entry) { return descriptor }
        loader.close(library)
        throw PluginError(path, reading.problems)
    }

    private static func entry(
        of library: UnsafeMutableRawPointer, _ loader: PluginLoader, _ reading: inout PluginReading
    ) -> UnsafeRawPointer? {
        typealias Entry = @convention(c) () -> UnsafePointer<apus_backend>?
        guard let symbol = loader.symbol(library, APUS_ENTRY_SYMBOL) else {
            reading.report("it does not export '\(APUS_ENTRY_SYMBOL)': it is no storage plugin")
            return nil
        }
        guard let table = unsafeBitCast(symbol, to: Entry.self)() else {
            reading.report("\(APUS_ENTRY_SYMBOL) returned NULL")
            return nil
        }
        return UnsafeRawPointer(table)
    }
}
