import Base
import Record
import Testing

@Suite struct GenerationTests {
    @Test func afterTheLastComesOne() {
        #expect(Generation.next(0) == 1 && Generation.next(1) == 2 && Generation.next(65534) == 65535)
        #expect(Generation.next(65535) == 1)
    }

    @Test func policies() {
        #expect(Generation.allows(.none, sent: 9, stored: 1))
        #expect(Generation.allows(.equal, sent: 5, stored: 5) && !Generation.allows(.equal, sent: 4, stored: 5))
        #expect(Generation.allows(.equal, sent: 0, stored: 0), "a record that is not there has generation 0")
        #expect(Generation.allows(.greater, sent: 6, stored: 5) && !Generation.allows(.greater, sent: 5, stored: 5))
        #expect(!Generation.allows(.equal, sent: 65536 + 5, stored: 5), "all 32 bits of the request count")
    }
}

@Suite struct TimeToLiveTests {
    private let now: UInt32 = 1000
    private func settings(
        default seconds: UInt32 = 0, nsup: UInt32 = 120, allow: Bool = false, reductions: Bool = true
    ) -> TimeToLive.Settings {
        TimeToLive.Settings(
            defaultSeconds: seconds, nsupPeriodSeconds: nsup, allowWithoutNsup: allow, applyReductions: reductions)
    }
    private func voidTime(
        _ requested: UInt32, existing: UInt32? = nil, _ settings: TimeToLive.Settings
    ) -> TimeToLive.Outcome {
        TimeToLive.voidTime(requested: requested, existing: existing, settings: settings, now: now)
    }

    @Test func requestedSeconds() {
        #expect(voidTime(50, settings()).voidTime == 1050)
        #expect(voidTime(0, settings()).voidTime == 0)
        #expect(voidTime(0, settings(default: 30)).voidTime == 1030)
        #expect(voidTime(TimeToLive.never, existing: 5000, settings(default: 30)).voidTime == 0)
        #expect(voidTime(TimeToLive.keep, existing: 5000, settings(default: 30)).voidTime == 5000)
        #expect(voidTime(TimeToLive.keep, settings(default: 30)).voidTime == 1030, "nothing to keep")
        #expect(voidTime(Limits.timeToLiveSecondsMax, settings()).result == .ok)
        #expect(voidTime(Limits.timeToLiveSecondsMax + 1, settings()).result == .parameter)
    }

    @Test func withoutExpiry() {
        #expect(voidTime(50, settings(nsup: 0)).result == .forbidden)
        #expect(voidTime(0, settings(nsup: 0)).result == .ok)
        #expect(voidTime(TimeToLive.never, settings(nsup: 0)).result == .ok)
        #expect(voidTime(50, settings(nsup: 0, allow: true)).voidTime == 1050)
    }

    @Test func reductions() {
        let kept = voidTime(50, existing: 2000, settings(reductions: false))
        #expect(kept.voidTime == 2000 && kept.reduction == .ignored)
        let applied = voidTime(50, existing: 2000, settings())
        #expect(applied.voidTime == 1050 && applied.reduction == .applied)
        #expect(voidTime(50, existing: 0, settings(reductions: false)).voidTime == 0, "for ever is longer")
        #expect(voidTime(50, existing: 1020, settings(reductions: false)).reduction == .none)
    }

    @Test func readTouch() {
        // Written at second 900 with 200 seconds to live: void at 1100, half of it is left now.
        func touch(_ requested: UInt32, percent: UInt32 = 0) -> TimeToLive.Touch {
            TimeToLive.shouldTouch(
                requested: requested, defaultPercent: percent, voidTime: 1100, lastUpdate: 900_000, now: now)
        }
        #expect(touch(0) == .no && touch(0, percent: 50) == .no && touch(0, percent: 51) == .touch)
        #expect(touch(51) == .touch && touch(50) == .no && touch(100) == .touch)
        #expect(touch(101) == .malformed && touch(TimeToLive.never, percent: 100) == .no)
        #expect(TimeToLive.shouldTouch(
            requested: 100, defaultPercent: 0, voidTime: 0, lastUpdate: 900_000, now: now) == .no, "lives for ever")
    }
}

@Suite struct OperationRulesTests {
    private func check(_ code: UInt8, name: String = "a", type: UInt8 = 1, _ flags: OperationRules.Flags) -> ResultCode {
        var summary = OperationRules.Summary()
        var text = name
        return text.withUTF8 { bytes in
            OperationRules.check(
                OperationView(
                    code: code, particleType: type, name: UnsafeRawBufferPointer(bytes),
                    value: UnsafeRawBufferPointer(start: nil, count: 0)),
                flags: flags, summary: &summary)
        }
    }
    private let plain = OperationRules.Flags(isReplace: false, readsAllowed: true, getsAll: false, respondsAll: false)
    private let replace = OperationRules.Flags(isReplace: true, readsAllowed: true, getsAll: false, respondsAll: false)

    @Test func names() {
        #expect(check(2, name: "123456789012345", plain) == .ok)
        #expect(check(2, name: "1234567890123456", plain) == .binName)
        #expect(check(2, name: "", plain) == .binName)
        #expect(check(2, name: "a\0b", plain) == .binName)
    }

    @Test func replaceTakesWritesOnly() {
        #expect(check(2, replace) == .ok)
        #expect(check(2, type: 0, replace) == .parameter, "a bin cannot be deleted by a replace")
        for code: UInt8 in [5, 9, 10, 11, 14] { #expect(check(code, replace) == .parameter) }
    }

    @Test func laterFeaturesAndNonsense() {
        for code: UInt8 in [3, 4, 12, 13, 15, 16] { #expect(check(code, plain) == .unsupportedFeature) }
        for code: UInt8 in [0, 6, 20, 128, 255] { #expect(check(code, plain) == .parameter) }
    }

    @Test func expressionsAreJudgedByTheirReader() {
        for code: UInt8 in [7, 8] { #expect(check(code, plain) == .ok) }
        #expect(check(8, replace) == .parameter, "an expression may look at what a replace drops")
    }

    @Test func readsNeedTheReadFlag() {
        let noReads = OperationRules.Flags(isReplace: false, readsAllowed: false, getsAll: false, respondsAll: false)
        #expect(check(1, noReads) == .parameter && check(1, plain) == .ok)
        #expect(check(1, name: "", plain) == .parameter, "all bins without the flag for all bins")
    }
}
