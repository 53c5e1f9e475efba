// How the rows of batches are counted.
internal import Base
internal import Wire

extension ShardCounters {
    /// Counts the end of a row that reached a machine.
    func countBatchRow(_ slot: SlotPointer, _ result: ResultCode) {
        if slot.pointee.isRead {
            switch result {
            case .ok: count(.batchSubReadSuccess)
            case .notFound: count(.batchSubReadNotFound)
            case .timeout: count(.batchSubReadTimeout)
            case .filteredOut: count(.batchSubReadFilteredOut)
            default: count(.batchSubReadError)
            }
        } else if slot.pointee.request.pointee.header.info2.contains(.delete) {
            switch result {
            case .ok: count(.batchSubDeleteSuccess)
            case .notFound: count(.batchSubDeleteNotFound)
            case .timeout: count(.batchSubDeleteTimeout)
            case .filteredOut: count(.batchSubDeleteFilteredOut)
            default: count(.batchSubDeleteError)
            }
        } else {
            switch result {
            case .ok: count(.batchSubWriteSuccess)
            case .timeout: count(.batchSubWriteTimeout)
            case .filteredOut: count(.batchSubWriteFilteredOut)
            default: count(.batchSubWriteError)
            }
        }
    }
}
