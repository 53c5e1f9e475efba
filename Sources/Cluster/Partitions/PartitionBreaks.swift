/// Rules that tests and the simulator switch off, to see that they would notice. Empty everywhere else.
package struct PartitionBreaks: OptionSet, Sendable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The order in which quotas are filled depends on the process, as the order of a hashed collection would.
    package static let hashOrderedQuota = PartitionBreaks(rawValue: 1)
    /// Neither the new epoch nor the memory of it is stored before a view opens.
    package static let forgetsEpochs = PartitionBreaks(rawValue: 2)
}
