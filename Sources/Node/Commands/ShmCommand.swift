internal import ArgumentParser
internal import Files
internal import Glibc
internal import Storage
internal import SystemSegment

/// `apus shm`.
struct ShmCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "shm",
        abstract: "Work with the segments in which indexes outlive their nodes (index-type shmem, pmem).",
        discussion: """
            A node that is started again goes on from its segment. One that is not wanted any more keeps its memory until it
            is removed, or the machine is started again (shmem).
            """,
        subcommands: [List.self, Remove.self])

    /// Where segments are looked for.
    struct Mounts: ParsableArguments {
        @Option(
            help: ArgumentHelp(
                "Mount to look at; may be given several times. Default: /dev/shm. Segments of index-type pmem need it.",
                valueName: "dir"))
        var mount: [String] = []

        /// What lies there; says why not and ends the command if it cannot be read.
        func segments() throws -> [SegmentSummary] {
            do throws(StorageError) {
                return try SegmentDirectory.list(mounts: all)
            } catch {
                printError(ShmCommand.sentence(error))
                throw ExitCode(1)
            }
        }

        var all: [String] { mount.isEmpty ? ["/dev/shm"] : mount }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the segments: what they are doing, how much memory they take, and whose they are.")

        @OptionGroup var mounts: Mounts

        func run() throws {
            let segments = try mounts.segments()
            guard !segments.isEmpty else { return print("no segments in \(mounts.all.joined(separator: ", "))") }
            ShmCommand.printTable(segments)
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove segments that no node uses; asks first.",
            discussion: """
                The next start of such a node is a cold one. What a killed node had not written to its devices is in the
                segment only: start it once before, or be sure that nobody needs it.
                """)

        @Argument(help: "Namespace, or name of the directory as 'apus shm list' prints it.")
        var name: String?

        @Flag(help: "All segments.")
        var all = false

        @Option(help: ArgumentHelp("All segments of the node with this work directory.", valueName: "workdir"))
        var owner: String?

        @Flag(help: "Do not ask.")
        var yes = false

        @OptionGroup var mounts: Mounts

        func validate() throws {
            guard [name != nil, all, owner != nil].filter({ $0 }).count == 1 else {
                throw ValidationError("say which: a name, --owner or --all")
            }
        }

        func run() throws {
            let chosen = try chosen(mounts.segments())
            guard !chosen.isEmpty else { return print("no segments in \(mounts.all.joined(separator: ", "))") }
            ShmCommand.printTable(chosen)
            guard yes || isConfirmed else {
                printError("nothing was changed")
                throw ExitCode(1)
            }
            // What cannot be removed does not keep the others.
            let removed = chosen.filter { remove($0) }
            if removed.count < chosen.count { throw ExitCode(1) }
        }

        private func chosen(_ segments: [SegmentSummary]) throws -> [SegmentSummary] {
            if all { return segments }
            let wanted = owner ?? name ?? ""
            // Nodes write it into their segments without links.
            let places = [wanted, absolutePath(wanted)]
            let found = segments.filter {
                owner != nil ? places.contains($0.owner) : $0.namespace == wanted || $0.name == wanted
            }
            let what = owner == nil ? "segment '\(wanted)'" : "segment of the node in \(wanted)"
            if found.isEmpty {
                printError("no \(what) in \(mounts.all.joined(separator: ", ")): 'apus shm list' prints what is there")
                throw ExitCode(1)
            }
            if owner == nil, found.count > 1 {
                printError("\(found.count) nodes have a \(what): name the directory: "
                    + found.map(\.name).joined(separator: ", "))
                throw ExitCode(1)
            }
            return found
        }

        private var isConfirmed: Bool {
            print("Everything in it will be gone. Type 'remove' to go on: ", terminator: "")
            fflush(nil)
            return readLine() == "remove"
        }

        private func remove(_ segment: SegmentSummary) -> Bool {
            do throws(StorageError) {
                try SegmentDirectory.remove(segment)
                print("removed \(segment.name)")
                return true
            } catch {
                printError(ShmCommand.sentence(error))
                return false
            }
        }
    }

    // ---- Text ----

    private static func sentence(_ error: StorageError) -> String {
        if case .medium(let sentence) = error { return sentence }
        return "\(error)"
    }

    private static func printTable(_ segments: [SegmentSummary]) {
        let head = ["namespace", "state", "size", "owner", "path"]
        let rows = [head] + segments.map { segment in
            let unknown = segment.namespace.isEmpty
            return [
                unknown ? "?" : segment.namespace, "\(segment.state)", size(segment.byteCount),
                unknown ? "?" : segment.owner, segment.paths.joined(separator: " "),
            ]
        }
        for line in TextTable.lines(rows) { print(line) }
    }

    private static func size(_ byteCount: Int) -> String {
        byteCount < 10 << 20 ? "\(byteCount >> 10) KB" : "\(byteCount >> 20) MB"
    }
}
