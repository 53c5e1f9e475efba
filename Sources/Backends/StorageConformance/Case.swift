// The list of all cases, in the order in which they run: the simple ones first, so that the first failure is the
// easiest to understand.
internal import Storage

/// One thing that is tested.
struct Case: Sendable {
    /// What the author writes after `--case`.
    let name: String
    /// Promises without which it makes no sense, and such with which it makes none.
    let needs: Capabilities
    let excludes: Capabilities
    /// Whether a blocking backend goes through it again on storage threads.
    let runsOnThreads: Bool
    let body: @Sendable (Context) throws(CaseEnd) -> Void

    init(
        _ name: String, needs: Capabilities = [], excludes: Capabilities = [], runsOnThreads: Bool = true,
        _ body: @escaping @Sendable (Context) throws(CaseEnd) -> Void
    ) {
        self.name = name
        self.needs = needs
        self.excludes = excludes
        self.runsOnThreads = runsOnThreads
        self.body = body
    }

    /// Why a backend with these promises need not pass it; nil if it must.
    func skipped(_ promises: Capabilities) -> String? {
        let missing = needs.subtracting(promises).names
        if !missing.isEmpty { return "the backend is not \(missing.joined(separator: ", "))" }
        let present = excludes.intersection(promises).names
        return present.isEmpty ? nil : "the backend is \(present.joined(separator: ", "))"
    }

    static let all: [Case] = [
        Case("round-trip", ContractCases.roundTrip),
        Case("sizes", ContractCases.sizes),
        Case("overwrite", ContractCases.overwrite),
        Case("two-versions", excludes: .keyed, ContractCases.twoVersions),
        Case("newest-version", needs: .keyed, ContractCases.newestVersion),
        Case("delete", ContractCases.delete),
        Case("remove-nothing", needs: .keyed, ContractCases.removeNothing),
        Case("commit", ContractCases.commit),
        Case("tags", ContractCases.tags),
        Case("calls-from-receive", ContractCases.callsFromReceive),
        Case("lent-bytes", ContractCases.lentBytes),
        Case("too-large", ContractCases.tooLarge),
        Case("shards", ContractCases.shards),
        Case("statistics", ContractCases.statistics),
        Case("at-once", needs: .volatile, ContractCases.atOnce),
        Case("blob", MetadataCases.blob),
        Case("partition-metadata", MetadataCases.partitions),
        Case("metadata-limits", MetadataCases.limits),
        Case("close", excludes: .volatile, ScanCases.close),
        Case("scan-once", ScanCases.once),
        Case("scan-on-threads", excludes: .volatile, ScanCases.onThreads),
        Case("scan-sequence", excludes: [.volatile, .keyed], ScanCases.sequence),
        Case("scan-stale", needs: .keyed, excludes: .volatile, ScanCases.stale),
        Case("scan-stale-replaced", needs: .keyed, excludes: .volatile, ScanCases.staleReplaced),
        Case("scan-segments", excludes: .volatile, ScanCases.segments),
        Case("scan-stop", excludes: .volatile, ScanCases.stop),
        Case("scan-while-writing", excludes: .volatile, ScanCases.whileWriting),
        Case("histories", RandomCases.histories),
        Case("crash", excludes: .volatile, runsOnThreads: false, RandomCases.crash),
        Case("crash-metadata", excludes: .volatile, runsOnThreads: false, RandomCases.crashMetadata),
        Case("pressure", PressureCase.run),
        Case("faults", excludes: .volatile, runsOnThreads: false, FaultCase.run),
    ]
}
