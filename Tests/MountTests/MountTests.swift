import Base
import Glibc
import Mount
import Storage
import TestSupport
import Testing

/// A directory that is gone when the test is.
final class TemporaryDirectory {
    let path: String

    init() {
        var template = Array("/tmp/apus-mount-XXXXXX".utf8CString)
        path = String(cString: mkdtemp(&template)!)
    }

    deinit { removeAll(path) }

    private func removeAll(_ path: String) {
        for name in names(path) {
            let inner = path + "/" + name
            if unlink(inner) != 0 { removeAll(inner) }
        }
        rmdir(path)
    }

    func names(_ path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    func write(_ name: String, _ text: String) {
        let file = open(path + "/" + name, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        #expect(Glibc.write(file, text, text.utf8.count) == text.utf8.count)
        close(file)
    }

    func read(_ name: String) -> String {
        let file = open(path + "/" + name, O_RDONLY)
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = Glibc.read(file, &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self)
    }
}

@Suite struct MountTests {
    private func descriptor(
        _ name: String = "shelf", capabilities: Capabilities = [.keyed, .blocking, .durableAtCommit],
            formats: ClosedRange<Int> = 1...2,
        medium: Medium = .directory, composition: Composition? = nil
    ) -> BackendDescriptor {
        BackendDescriptor(
            name: name, contract: .current, formats: formats, capabilities: capabilities,
            limits: BackendLimits(imageSizeMax: 1 << 20, locationBits: 44, atomicWriteSize: 0), medium: medium,
            settings: composition.map { [SettingSchema($0.setting, .backend, help: "")] } ?? [], composition: composition,
            open: { (request) throws(StorageError) -> any Backend in
                if request.namespace == "converted",
                    request.storedFormat != 1 { throw .settings("format \(request.storedFormat)") }
                if let setting = composition?.setting { return try request.openPart(setting) }
                return BlockingBackend(request.directory)
            })
    }

    private func request(
        _ namespace: String, _ engine: String = "shelf", directory: String, needs: Capabilities = [],
            imageSizeMax: Int = 1000,
        more: [(name: String, value: String)] = []
    ) -> MountRequest {
        MountRequest(
            namespace: namespace, engine: engine, settings: BackendSettings([(name: "directory", value: directory)] + more),
            requirements: Requirements(needs: [(needs, "the test")], imageSizeMax: imageSizeMax),
            defaultDirectory: directory + "-default", log: { _ in })
    }

    private func problem(_ body: () throws -> Void) -> String {
        do {
            try body()
            return "none"
        } catch { return (error as? StorageError)?.text ?? "\(error)" }
    }

    // ---- Identity ----

    @Test func aDirectoryIsMadeIdentifiedAndCounted() throws {
        let directory = TemporaryDirectory()
        let mount = Mount(try BackendRegistry([descriptor()]))
        for session in 1...3 {
            let (backend, agreement) = try mount.open(request("birds", directory: directory.path + "/a/b"))
            #expect(agreement.backend == "shelf" && agreement.format == 2)
            try backend.close()
            let identity = try MediumIdentity(parsing: Array(directory.read("a/b/apus-medium").utf8))
            #expect(identity.session == UInt64(session) && identity.namespace == "birds" && identity.agreement == agreement)
            #expect(directory.names(directory.path + "/a/b") == ["apus-medium", "apus-medium.lock", "data"])
        }
    }

    @Test func mediaOfOthersAreRefusedUntouched() throws {
        let directory = TemporaryDirectory()
        let mount = Mount(try BackendRegistry([descriptor(), descriptor("other"), descriptor("older", formats: 1...1)]))
        try mount.open(request("birds", directory: directory.path)).backend.close()
        let before = directory.read("apus-medium")
        #expect(problem { _ = try mount.open(request("fish",
            directory: directory.path)) }.contains("namespace 'birds', not of 'fish'"))
        #expect(problem { _ = try mount.open(request("birds", "other",
            directory: directory.path)) }.contains("'shelf', not by 'other'"))
        directory.write("apus-medium", before.replacing("backend=shelf", with: "backend=older"))
        #expect(problem { _ = try mount.open(request("birds", "older", directory: directory.path)) }.contains("format 2"))
        directory.write("apus-medium", before.replacing("apus-medium=2", with: "apus-medium=9"))
        #expect(problem { _ = try mount.open(request("birds", directory: directory.path)) }.contains("use a newer Apus"))
        directory.write("apus-medium", before.replacing("apus-medium=2", with: "apus-medium=1"))
        #expect(problem { _ = try mount.open(request("birds", directory: directory.path)) }.contains("format 1, written by"))
        directory.write("apus-medium", "apus-medium=2\nnamespace=birds\n")
        #expect(problem { _ = try mount.open(request("birds", directory: directory.path)) }.contains("incomplete"))
        directory.write("apus-medium", "what is this")
        #expect(problem { _ = try mount.open(request("birds", directory: directory.path)) }.contains("cannot be read"))
        #expect(directory.read("apus-medium") == "what is this")
        let foreign = TemporaryDirectory()
        foreign.write("thesis.tex", "precious")
        #expect(problem { _ = try mount.open(request("birds", directory: foreign.path)) }.contains("thesis.tex"))
        #expect(foreign.names(foreign.path) == ["thesis.tex"])
    }

    /// The backend is told which format it finds; the newest is written only when it has opened that.
    @Test func anOldFormatIsConvertedOnce() throws {
        let directory = TemporaryDirectory()
        func mount(_ formats: ClosedRange<Int>) throws -> Mount {
            Mount(try BackendRegistry([descriptor(formats: formats)]))
        }
        func format() throws -> Int {
            try MediumIdentity(parsing: Array(directory.read("apus-medium").utf8)).agreement.format
        }
        try mount(1...1).open(request("converted", directory: directory.path)).backend.close()
        #expect(try format() == 1)
        try mount(1...2).open(request("converted", directory: directory.path)).backend.close()
        #expect(try format() == 2)
        #expect(problem { _ = try mount(1...3).open(request("converted", directory: directory.path)) } == "format 2")
        #expect(try format() == 2, "what did not open was not converted")
        #expect(problem { _ = try mount(1...1).open(request("converted",
            directory: directory.path)) }.contains("use a newer one"))
    }

    @Test func oneProcessAtATime() throws {
        let directory = TemporaryDirectory()
        let mount = Mount(try BackendRegistry([descriptor()]))
        let first = try mount.open(request("birds", directory: directory.path)).backend
        #expect(problem { _ = try mount.open(request("birds",
            directory: directory.path)) }.contains("in use by process \(getpid())"))
        try first.close()
        try mount.open(request("birds", directory: directory.path)).backend.close()
    }

    // ---- Negotiation ----

    @Test func allProblemsOfAllNamespacesAtOnceAndNothingTouched() throws {
        let directory = TemporaryDirectory()
        let full = TemporaryDirectory()
        full.write("thesis.tex", "precious")
        let link = directory.path + "/link"
        symlink(directory.path, link)
        let weak = descriptor("weak", capabilities: [.keyed, .volatile], medium: .none)
        let mount = Mount(try BackendRegistry([descriptor(), weak]))
        let problems = mount.problems([
            request("one", directory: directory.path + "/x"),
            request("two", directory: link + "/./x", imageSizeMax: 2 << 20),
            request("three", "weak", directory: "", needs: [.durableAtCommit, .deletesLast]),
            request("four", "nothing", directory: ""),
            request("five", directory: full.path),
        ])
        let texts = problems.joined(separator: "\n")
        #expect(problems.count == 5, "\(texts)")
        #expect(texts.contains("namespace two: directory \(directory.path)/x is that of namespace 'one' already"))
        #expect(texts.contains("namespace two: storage-engine 'shelf': it holds records up to 1048576 bytes"))
        #expect(texts.contains("namespace three: storage-engine 'weak': it does not promise durable-at-commit"))
        #expect(texts.contains("deletes-last, which the test needs"))
        #expect(texts.contains("namespace four: there is no storage-engine 'nothing'"))
        #expect(texts.contains("namespace five: directory \(full.path) holds files"))
        #expect(directory.names(directory.path) == ["link"])
    }

    /// A composition promises what its part does, and its part's directory is checked like any other.
    @Test func compositions() throws {
        let directory = TemporaryDirectory()
        let composition = Composition(setting: "cold") { (capabilities,
            limits) in (capabilities.subtracting(.blocking), limits) }
        let mount = Mount(try BackendRegistry([
            descriptor(), descriptor("pair", capabilities: [], medium: .none, composition: composition),
        ]))
        func pair(_ namespace: String, _ cold: String) -> MountRequest {
            request(
                namespace, "pair", directory: "", needs: .durableAtCommit,
                more: [(name: "cold", value: cold), (name: "cold.directory", value: directory.path)])
        }
        #expect(mount.problems([pair("a", "shelf")]).isEmpty)
        #expect(mount.problems([pair("a", "self")]).joined().contains("no storage-engine 'self'"))
        #expect(mount.problems([pair("a", "pair")]).joined().contains("'cold' must pick a storage-engine"))
        let (backend, agreement) = try mount.open(pair("a", "shelf"))
        #expect(agreement.capabilities == [.keyed, .durableAtCommit] && agreement.backend == "pair")
        try backend.close()
        #expect(mount.problems([pair("b", "shelf")]).joined().contains("namespace 'a', not of 'b'"))
        #expect(mount.problems([request("a", directory: directory.path)]).isEmpty, "the part alone opens its medium too")
    }

    @Test func namesAreCheckedWhenTheRegistryIsFrozen() {
        #expect(throws: NegotiationError.self) { try BackendRegistry([descriptor(), descriptor()]) }
        #expect(throws: NegotiationError.self) { try BackendRegistry([descriptor("two words")]) }
        #expect(throws: NegotiationError.self) { try BackendRegistry([descriptor("")]) }
        #expect(throws: NegotiationError.self) { try BackendRegistry([descriptor(capabilities: .blocking)]) }
        #expect(throws: NegotiationError.self) { try BackendRegistry([descriptor(capabilities: [.volatile,
            .durableAtCommit])]) }
    }
}
