import Base
import Glibc
import TestSupport
import Testing

/// How much longer than usual everything may take: `APUS_SOAK`.
private var scale: Double { getenv("APUS_SOAK").flatMap { Double(String(cString: $0)) } ?? 1 }

/// Runs histories until there were `crashes`; the failure that ended it, if there was one.
private func run(_ name: String, crashes: Int, canary: CrashCanary? = nil) -> (failure: String?, figures: CrashFigures) {
    let replay = getenv("APUS_HISTORY").flatMap { UInt64(String(cString: $0)) }
    var random = SeededRandom(seed: runSeed(name))
    var all = CrashFigures()
    repeat {
        let plan = CrashPlan(seed: replay ?? random.next(), canary: canary, prints: replay != nil)
        let history = CrashHistory(plan)
        do {
            try history.run()
        } catch {
            let words = (error as? CrashFailure)?.words ?? "\(error)"
            all.add(history.figures)
            return ("\(words)\nwith \(plan.text)\nagain: APUS_HISTORY=\(plan.seed), test \(name)", all)
        }
        all.add(history.figures)
    } while all.crashes < crashes && replay == nil
    print("\(name): \(all.text)")
    return (nil, all)
}

/// Engine and device log together, under power failures at any moment.
@Suite(.serialized) struct EngineCrashTests {
    @Test func recordsSurviveCrashes() {
        let wanted = Int(10_000 * scale)
        let (failure, figures) = run("recordsSurviveCrashes", crashes: wanted)
        #expect(failure == nil, "\(failure ?? "")")
        // The history must have met what makes a log hard.
        #expect(figures.closes > 0 && figures.quietPoints > 0 && figures.refusals > 0 && figures.tombstones > 0)
        #expect(figures.movedImages > 0 && figures.kills > 0 && (figures.probes > 0 || getenv("APUS_SOAK") == nil))
    }

    /// Histories that have found flaws which chance finds once in 100,000.
    /// 9540523635935854729: blocks whose front a crash had lost showed again what a later use had hidden.
    @Test(arguments: [9_540_523_635_935_854_729 as UInt64])
    func rareHistoriesStayRight(_ seed: UInt64) throws {
        let history = CrashHistory(CrashPlan(seed: seed, canary: nil, prints: false))
        #expect(throws: Never.self) { try history.run() }
        #expect(history.figures.crashes > 0)
    }

    /// What a start shows finds writes that were never made durable, starts that build on what does not last, and blocks
    /// that were written again too early; an answer finds locations without bytes; the book of what the index holds
    /// finds a wrong release.
    @Test(arguments: [
        (CrashCanary.forgetsDurable, ["after a start the record is", "a start shows an image", "a start fails"]),
        (.forgetsFlush, ["after a start the record is", "a start shows an image"]),
        (.reusesEarly, ["after a start the record is"]), (.publishesEarly, ["is answered 1"]),
        (.releasesWhatWasSeen, ["is released, and the index held"]),
    ])
    func everyFlawIsFound(_ canary: CrashCanary, _ finders: [String]) {
        let (failure, figures) = run("\(canary)", crashes: Int(10_000 * scale), canary: canary)
        print("\(canary): found after \(figures.text)")
        #expect(finders.contains { failure?.contains($0) == true }, "\(failure ?? "nothing was found")")
    }
}
