// Generations and times to live: pure rules.
package import Base

/// Rules of the 16-bit generation.
package enum Generation {
    /// What a request expects.
    package enum Policy: Sendable, BitwiseCopyable {
        case none
        /// Exactly the sent generation.
        case equal
        /// The sent generation must be above the stored one.
        case greater
    }

    /// The generation after `generation`: 65535 is followed by 1, for 0 means "no record".
    package static func next(_ generation: UInt16) -> UInt16 { generation == .max ? 1 : generation + 1 }

    /// Whether a write may go on. A record that does not exist has generation 0.
    package static func allows(_ policy: Policy, sent: UInt32, stored: UInt16) -> Bool {
        switch policy {
        case .none: true
        case .equal: sent == UInt32(stored)
        case .greater: sent > UInt32(stored)
        }
    }
}

/// Rules of times to live, in seconds; void-times are seconds since 2010, 0 for never.
package enum TimeToLive {
    /// Request value: keep the void-time.
    package static let keep: UInt32 = 0xFFFF_FFFE
    /// Request value: never expire. For reads: never touch.
    package static let never: UInt32 = 0xFFFF_FFFF

    /// The settings of a namespace that the rules need.
    package struct Settings: Sendable, BitwiseCopyable {
        package var defaultSeconds: UInt32
        package var nsupPeriodSeconds: UInt32
        package var allowWithoutNsup: Bool
        package var applyReductions: Bool

        package init(
            defaultSeconds: UInt32, nsupPeriodSeconds: UInt32, allowWithoutNsup: Bool, applyReductions: Bool
        ) {
            self.defaultSeconds = defaultSeconds
            self.nsupPeriodSeconds = nsupPeriodSeconds
            self.allowWithoutNsup = allowWithoutNsup
            self.applyReductions = applyReductions
        }
    }

    /// Whether a write would have shortened a life.
    package enum Reduction: Sendable, BitwiseCopyable { case none, ignored, applied }

    /// What a write makes of the void-time.
    package struct Outcome: Sendable, BitwiseCopyable {
        package var result = ResultCode.ok
        package var voidTime: UInt32 = 0
        package var reduction = Reduction.none
    }

    /// The void-time after a write that asks for `requested`. `existing` is the old void-time, nil for a new
    /// record.
    package static func voidTime(
        requested: UInt32, existing: UInt32?, settings: Settings, now: UInt32
    ) -> Outcome {
        var outcome = Outcome()
        if requested == never { return outcome }
        if requested == keep, let existing {
            outcome.voidTime = existing
            return outcome
        }
        let seconds = requested == 0 || requested == keep ? settings.defaultSeconds : requested
        guard seconds <= Limits.timeToLiveSecondsMax else {
            outcome.result = .parameter
            return outcome
        }
        guard seconds > 0 else { return outcome }
        guard settings.nsupPeriodSeconds > 0 || settings.allowWithoutNsup else {
            outcome.result = .forbidden
            return outcome
        }
        outcome.voidTime = now.addingReportingOverflow(seconds).overflow ? .max : now + seconds
        if let existing, existing == 0 || existing > outcome.voidTime {
            outcome.reduction = settings.applyReductions ? .applied : .ignored
            if !settings.applyReductions { outcome.voidTime = existing }
        }
        return outcome
    }

    /// Whether a read renews the record's life.
    package enum Touch: Sendable, BitwiseCopyable { case no, touch, malformed }

    /// A read asks for `requested`: 0 the default percentage, -1 never, 1 to 100 the share of the last life
    /// that must be left for the read to leave the record alone.
    package static func shouldTouch(
        requested: UInt32, defaultPercent: UInt32, voidTime: UInt32, lastUpdate: UInt64, now: UInt32
    ) -> Touch {
        if requested == never { return .no }
        guard requested <= 100 else { return .malformed }
        let percent = requested == 0 ? defaultPercent : requested
        guard percent > 0, voidTime > 0 else { return .no }
        let written = RecordTime(milliseconds: lastUpdate).seconds
        guard voidTime > written, voidTime >= now else { return .no }
        let left = UInt64(voidTime - now) * 100
        return left < UInt64(voidTime - written) * UInt64(percent) ? .touch : .no
    }
}
