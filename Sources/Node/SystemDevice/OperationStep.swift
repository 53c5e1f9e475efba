// What a result of the system means for an operation: the same for a ring and for helper threads.
internal import Device
internal import Glibc

/// What is to be done after a system call for an operation.
enum OperationStep {
    /// It has ended: 0 or an errno.
    case ended(failure: Int32)
    /// So many bytes more are done, and some are left.
    case progress(Int)
    /// Nothing was done and may be done now.
    case again

    /// - Parameter result: bytes transferred, or -errno.
    init(_ operation: Operation, result: Int, readsDirectly: Bool) {
        let failure = result < 0 ? Int32(truncatingIfNeeded: -result) : 0
        switch failure {
        case 0: break
        // ECANCELED: the thread that had submitted it has ended.
        case EINTR, EAGAIN, ECANCELED:
            self = .again
            return
        // Whoever discards is content with bytes as they were.
        case EOPNOTSUPP where operation.kind == .discard, ENOTTY where operation.kind == .discard:
            self = .ended(failure: 0)
            return
        // A direct transfer of whole sectors that does not fit any more: the file was cut off within one.
        case EINVAL where operation.doneByteCount > 0:
            self = .ended(failure: EIO)
            return
        default:
            self = .ended(failure: failure)
            return
        }
        switch operation.kind {
        case .flush, .discard: self = .ended(failure: 0)
        case .read, .write, .durableWrite:
            let left = operation.byteCount - operation.doneByteCount - result
            if left == 0 {
                self = .ended(failure: 0)
            } else if result == 0 || (readsDirectly && operation.kind == .read && result % 512 != 0) {
                // The end of a file that was longer when it was opened.
                self = .ended(failure: EIO)
            } else {
                self = .progress(result)
            }
        }
    }
}
