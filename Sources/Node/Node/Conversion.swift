// `apus convert`: the way of a namespace from one backend to another. Invariants:
// 1. Nothing is opened before both configurations and their media were looked at and the operator has agreed.
// 2. Nothing is appended to the source or deleted there, and it is open (so that nobody else can open it) until the target
//    was compared with it.
// 3. A target is good only if it was closed, opened again, and holds exactly what was copied; it was empty before.
internal import Base
internal import CReactor
internal import Configuration
internal import Glibc
internal import Index
internal import Logging
internal import Reactor
public import Storage

extension Node {
    /// Copies `namespace`, which no node has open, from the backend that the configuration `from` gives it to that of the
    /// configuration `to`, and compares. `confirm` is shown what is going to happen and says whether it may. Progress and
    /// problems go to standard error, the result to standard output. Main thread, before any other thread exists.
    /// - Returns: an `ExitCode`: `stopped` if the target now serves what the source did.
    public static func convert(
        _ namespace: String, from: String, to: String, backends: [BackendDescriptor], confirm: (String) -> Bool
    ) -> Int32 {
        let signals = SignalSet.block()
        do throws(LogError) {
            let log = try Logger(sinks: [])
            return Conversion.run(namespace, from, to, backends, signals, log, confirm)
        } catch {
            printError(error.description)
            return ExitCode.startFailed
        }
    }
}

/// One conversion. Main thread.
struct Conversion {
    private let name: String
    private let from: ConversionSide
    private let to: ConversionSide
    private let signals: SignalSet
    private let log: Logger
    private let bell: ConversionBell
    /// Decides once for all what has expired.
    private let now = SystemClock.now()

    // ---- Looking ----

    static func run(
        _ name: String, _ from: String, _ to: String, _ backends: [BackendDescriptor], _ signals: SignalSet, _ log: Logger,
        _ confirm: (String) -> Bool
    ) -> Int32 {
        var problems: [String] = []
        let sides = [from, to].compactMap { file in
            do throws(ConfigurationError) {
                return try ConversionSide(
                    file, namespace: name, backends: backends, log: { log.info(.storage, $0) },
                    warn: { log.warning(.storage, $0) })
            } catch {
                problems += error.problems
                return nil
            }
        }
        guard sides.count == 2 else { return refuse(problems, Node.ExitCode.badConfiguration) }
        problems = sides[0].problemsAsSource + sides[1].problemsAsTarget(source: sides[0])
        guard problems.isEmpty else { return refuse(problems, Node.ExitCode.startFailed) }
        let question = "Namespace '\(name)' is copied from \(sides[0].words) to \(sides[1].words).\n"
            + "The records of the source stay as they are; opening it is one more start on it. The target is empty and is"
            + " written to.\n"
        guard confirmUnblocked({ confirm(question) }) else {
            return refuse(["nothing was changed"], Node.ExitCode.startFailed)
        }
        do throws(ConversionError) {
            try Conversion(
                name: name, from: sides[0], to: sides[1], signals: signals, log: log, bell: ConversionBell()
            ).work()
            return Node.ExitCode.stopped
        } catch {
            return refuse([error.message], Node.ExitCode.startFailed)
        }
    }

    private static func refuse(_ problems: [String], _ code: Int32) -> Int32 {
        for problem in problems { Node.printError(problem) }
        return code
    }

    /// While somebody is asked, Ctrl-C ends the process as usual: nothing has begun.
    private static func confirmUnblocked(_ confirm: () -> Bool) -> Bool {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGTERM, SIGINT] { sigaddset(&set, number) }
        pthread_sigmask(SIG_UNBLOCK, &set, nil)
        defer { pthread_sigmask(SIG_BLOCK, &set, nil) }
        return confirm()
    }

    // ---- Working ----

    private func work() throws(ConversionError) {
        guard let source = try open(from, "source", keepsMemory: true) else {
            throw ConversionError("namespace \(name): stopped by a signal before anything was copied")
        }
        do throws(ConversionError) {
            let copied = try copy(source)
            try check(source, copied)
            try summarise(source, copied)
        } catch {
            closeSource(source)
            throw error
        }
        closeSource(source)
    }

    private func open(
        _ side: ConversionSide, _ word: String, keepsMemory: Bool = false
    ) throws(ConversionError) -> ConversionNamespace? {
        let filling = ConversionNamespace.Filling(
            name: word, now: now.wall, count: side.threads, signals: signals, log: log)
        return try ConversionNamespace.open(side, keepsMemory: keepsMemory, bell: bell, filling)
    }

    private func closeSource(_ source: ConversionNamespace) {
        do throws(StorageError) {
            try source.close()
        } catch {
            log.warning(.storage, "the source does not close: \(error.text); nothing was written to it")
        }
    }

    /// What came of the first pass.
    private struct Copied {
        var sum = ConversionSum()
        var lost: Set<Digest> = []
        var expired = 0
        var tombstones = 0
    }

    /// What is left out of a target that needs tombstones, or does not.
    private func isExpired(_ entry: IndexEntry) -> Bool {
        entry.kind == .live && entry.voidTime != 0 && entry.voidTime < now.wall.seconds
    }

    private func copy(_ source: ConversionNamespace) throws(ConversionError) -> Copied {
        guard let target = try open(to, "target") else { throw interrupted("nothing was copied") }
        var copied = Copied()
        do throws(ConversionError) {
            guard target.images == 0 else {
                throw ConversionError("\(to.file): namespace \(name): the target of a conversion must be empty, and holds"
                    + " \(target.images) images. If nobody needs them: \(to.emptying)")
            }
            let step = ConversionCopy(target)
            let keepsTombstones = target.needsTombstones
            let pass = ConversionPass(source, step, bell, log, verb: "copied") { [self] record in
                if record.entry.kind != .live, !keepsTombstones { copied.tombstones += 1 }
                if isExpired(record.entry) { copied.expired += 1 }
                return isWanted(record.entry, keepsTombstones)
            }
            pass.run(signals)
            copied.sum = step.sum
            copied.lost = pass.lost
            let count = "\(step.sum.records) of \(source.index.count) records were copied"
            if pass.isStopped { throw interrupted(count) }
            if let (error, record) = pass.failure { throw unfinished(sentence(error, record, source), count) }
            do throws(StorageError) {
                try target.store(try source.metadata())
                try target.close()
            } catch {
                throw unfinished("the target cannot be completed: \(error.text)", count)
            }
        } catch {
            try? target.close()
            throw error
        }
        return copied
    }

    private func isWanted(_ entry: IndexEntry, _ keepsTombstones: Bool) -> Bool {
        (entry.kind == .live || keepsTombstones) && !isExpired(entry)
    }

    /// The target, opened anew, must hold what was copied, byte for byte, and nothing else.
    private func check(_ source: ConversionNamespace, _ copied: Copied) throws(ConversionError) {
        guard let target = try open(to, "copy") else { throw interrupted("all records were copied, but not compared") }
        let step = ConversionCheck(target, log)
        let keepsTombstones = target.needsTombstones
        let pass = ConversionPass(source, step, bell, log, verb: "compared") { [self] record in
            isWanted(record.entry, keepsTombstones) && !copied.lost.contains(record.digest)
        }
        pass.run(signals)
        var problems: [String] = []
        if !pass.lost.isEmpty { problems.append("\(pass.lost.count) records of the source could be read once, not again") }
        if step.differences > 0 { problems.append("\(step.differences) records of the target are missing or differ") }
        if target.index.count != copied.sum.records {
            problems.append("the target holds \(target.index.count) records, copied were \(copied.sum.records)")
        }
        if step.sum != copied.sum, problems.isEmpty { problems.append("the sums over what was copied and read back differ") }
        if let (error, _) = pass.failure { problems.append(error.text) }
        do throws(StorageError) {
            let (old, new) = (try source.metadata(), try target.metadata())
            if old.blob != new.blob || old.partitions != new.partitions {
                problems.append("the target has other metadata than the source")
            }
            try target.close()
        } catch {
            try? target.close()
            problems.append("the target cannot be read: \(error.text)")
        }
        if pass.isStopped { throw interrupted("all records were copied, but not compared") }
        guard problems.isEmpty else {
            throw unfinished(problems.joined(separator: "; "), "all records were copied")
        }
    }

    // ---- Words ----

    private func sentence(_ error: StorageError, _ record: IndexedRecord?, _ source: ConversionNamespace) -> String {
        switch error {
        case .outOfSpace: return "the target is full: make it larger (\(to.words))"
        case .tooLarge(let limit):
            let set = record.map { source.setName($0.entry) } ?? ""
            return "record \(record.map { "\($0.digest)" } ?? "")\(set.isEmpty ? "" : " of set '\(set)'") takes"
                + " \(record?.entry.byteCount ?? 0) bytes, storage-engine '\(to.engine)' holds records up to \(limit)"
        default: return "storage failed: \(error.text)"
        }
    }

    private func interrupted(_ count: String) -> ConversionError { unfinished("stopped by a signal", count) }

    private func unfinished(_ reason: String, _ count: String) -> ConversionError {
        ConversionError("namespace \(name): \(reason). \(count): the target is not complete and not to be used. The source"
            + " is as it was. Empty the target before the next attempt: \(to.emptying)")
    }

    private func summarise(_ source: ConversionNamespace, _ copied: Copied) throws(ConversionError) {
        let seconds = Double(SystemClock.monotonic().nanoseconds(since: now.monotonic) / 1_000_000) / 1000
        print("namespace \(name): \(copied.sum.records) records (\(copied.sum.bytes >> 20) MB) copied from \(from.words) to"
            + " \(to.words) and read back, the same byte for byte, in \(seconds) s; checksum \(copied.sum.checksum)")
        let left: [(count: Int, words: String)] = [
            (copied.expired + source.expired, "records had expired and were left out"),
            (copied.tombstones, "tombstones are not needed there and were left out"),
            (source.damaged, "images of the source were damaged: no node would serve them, they were left out"),
            (source.lostPlaces, "places of the source's medium could not be read, or a crash had cut them off: what was"
                + " there is left out"),
        ]
        for one in left where one.count > 0 { print("\(one.count) \(one.words)") }
        fflush(nil)
        guard copied.lost.isEmpty else {
            throw ConversionError("\(copied.lost.count) records of the source could not be read, see above: they are not in"
                + " the target, everything else is")
        }
    }
}
