// From configured text to the numbers that engines read.
internal import Configuration
internal import Engine
internal import Storage

extension LiveNamespaceSettings {
    /// What a namespace is configured to.
    init(_ configured: NamespaceConfiguration) {
        self.init()
        func number(_ name: String) -> UInt32 { UInt32(clamping: configured.number(name)) }
        defaultTimeToLiveSeconds = number("default-ttl")
        nsupPeriodSeconds = number("nsup-period")
        nsupHistogramPeriodSeconds = number("nsup-hist-period")
        nsupThreads = number("nsup-threads")
        readTouchPercent = number("default-read-touch-ttl-pct")
        allowTimeToLiveWithoutNsup = configured.flag("allow-ttl-without-nsup")
        applyTimeToLiveReductions = configured.flag("apply-ttl-reductions")
        disallowNullSetName = configured.flag("disallow-null-setname")
        recordSizeMax = configured.maxRecordSize
        pendingLimit = configured.transactionPendingLimit
        forcesLongQueries = configured.flag("force-long-queries")
        inlinesShortQueries = configured.flag("inline-short-queries")
        backgroundQueryRecordsPerSecondMax = number("background-query-max-rps")
        singleQueryThreads = number("single-query-threads")
        truncateThreads = number("truncate-threads")
        setThresholds(configured)
    }

    private mutating func setThresholds(_ configured: NamespaceConfiguration) {
        func number(_ name: String) -> UInt32 { UInt32(clamping: configured.number(name)) }
        let storage = configured.storageSettings
        func threshold(_ name: String, _ otherwise: UInt32) -> UInt32 {
            storage.number(name).map { UInt32(clamping: $0) } ?? otherwise
        }
        evictHistogramBuckets = number("evict-hist-buckets")
        evictTenthsPercent = number("evict-tenths-pct")
        evictIndexesMemoryPercent = number("evict-indexes-memory-pct")
        disablesEviction = configured.flag("disable-eviction")
        evictUsedPercent = threshold(StandardSettings.evictUsed, evictUsedPercent)
        stopWritesUsedPercent = threshold(StandardSettings.stopWritesUsed, stopWritesUsedPercent)
        stopWritesAvailablePercent = threshold(StandardSettings.stopWritesAvailable, stopWritesAvailablePercent)
        stopUpdatesUsedPercent = threshold(StandardSettings.stopUpdatesUsed, stopUpdatesUsedPercent)
        stopUpdatesAvailablePercent = threshold(StandardSettings.stopUpdatesAvailable, stopUpdatesAvailablePercent)
        stopWritesSystemMemoryPercent = number("stop-writes-sys-memory-pct")
        stopUpdatesSystemMemoryPercent = number("stop-updates-sys-memory-pct")
        indexesMemoryBudget = configured.indexesMemoryBudget
        indexMountsBudget = configured.indexMountsBudget
    }
}

extension LiveServiceSettings {
    /// What the node is configured to.
    init(_ configured: ServiceConfiguration) {
        self.init()
        func number(_ name: String) -> UInt32 { UInt32(clamping: configured.number(name)) }
        transactionMaxMilliseconds = UInt64(configured.transactionMaxMs)
        batchRequestsMax = number("batch-max-requests")
        batchIndexThreads = number("batch-index-threads")
        batchBuffersPerQueueMax = number("batch-max-buffers-per-queue")
        batchUnusedBuffersMax = number("batch-max-unused-buffers")
        queryDoneMax = number("query-max-done")
        queryThreadsLimit = number("query-threads-limit")
        tickerIntervalSeconds = UInt32(clamping: configured.tickerInterval)
        clientConnectionsMax = UInt32(clamping: configured.protoFdMax)
        connectionIdleMilliseconds = UInt32(clamping: configured.protoFdIdleMs)
        hasMicrosecondHistograms = configured.microsecondHistograms
    }
}
