// The `main` of an author's test program.
internal import Glibc
public import Storage

/// A test of the author's own, beside those of the kit: of what only this backend promises, like a setting.
public struct OwnCase {
    let name: String
    let body: () throws(StorageError) -> String?

    /// `body` says in words what was wrong, or nil; an error is a failure too.
    public init(_ name: String, _ body: @escaping () throws(StorageError) -> String?) {
        self.name = name
        self.body = body
    }
}

extension Kit {
    private static let usage = """
        Tests a storage backend against its contract and the promises it makes.
          --seed N           replay a run; without it the seed is drawn and printed
          --histories N      random histories without crashes
          --crash-points N   crashes in random histories
          --case NAME        only this case; may be given several times
          --list             the names of the cases
          --help             this text
        Exit code 0: nothing failed; 1: something did; 64: wrong usage.
        """

    /// Runs the kit as a program: `arguments` without the program's name. Prints a line for each case; the last line is
    /// `N passed, N failed, N skipped`. `ownCases` come last.
    /// - Returns: the exit code.
    public static func main(
        _ arguments: [String], ownCases: [OwnCase] = [], _ makeSubject: () -> any ConformanceSubject
    ) -> Int32 {
        if arguments.contains("--help") {
            print(usage)
            return 0
        }
        if arguments.contains("--list") {
            print((caseNames + ownCases.map(\.name)).joined(separator: "\n"))
            return 0
        }
        let settings: KitSettings
        do throws(UsageError) { settings = try parsed(arguments) } catch {
            print("\(error.text)\n\(usage)")
            return 64
        }
        let subject = makeSubject()
        print("\(subject.descriptor.name): --seed \(settings.seed)")
        let kit = Kit(subject, settings) { line in
            print(line)
            fflush(nil)
        }
        var result = kit.run()
        for one in ownCases { kit.run(one, &result) }
        guard !(result.passed.isEmpty && result.failed.isEmpty && result.skipped.isEmpty) else {
            print("no case has that name; --list has them all")
            return 64
        }
        if result.crashPoints > 0 { print("\(result.crashPoints) crashes") }
        print(result.summary)
        return result.failed.isEmpty ? 0 : 1
    }

    private struct UsageError: Error { let text: String }

    private static func parsed(_ arguments: [String]) throws(UsageError) -> KitSettings {
        var settings = KitSettings(seed: UInt64.random(in: 0...UInt64(UInt32.max)))
        var rest = arguments[...]
        while let option = rest.popFirst() {
            guard ["--seed", "--histories", "--crash-points", "--case"].contains(option) else {
                throw UsageError(text: "unknown option '\(option)'")
            }
            guard let value = rest.popFirst() else { throw UsageError(text: "\(option) needs a value") }
            if option == "--case" {
                settings.cases.append(value)
                continue
            }
            guard let number = UInt64(value), option == "--seed" || number <= 1_000_000_000 else {
                throw UsageError(text: "\(option) needs a number, not '\(value)'")
            }
            switch option {
            case "--seed": settings.seed = number
            case "--histories": settings.histories = Int(number)
            default: settings.crashPoints = Int(number)
            }
        }
        return settings
    }
}
