// Settings of a log that may change while it is in use.
internal import Storage

extension LogCore: Adjusting {
    func adjust(_ settings: BackendSettings) {
        put(
            defragLivePercent: settings.number("defrag-lwm-pct").map { Int($0) } ?? defragLivePercent,
            flushMaxMilliseconds: settings.number("flush-max-ms") ?? flushMaxMilliseconds)
    }
}
