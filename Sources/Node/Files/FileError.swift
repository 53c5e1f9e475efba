internal import Glibc

/// What the system says of an errno, the last one if none is given.
package func errnoText(_ reason: Int32 = errno) -> String { String(cString: strerror(reason)) }

/// What could not be done with a file or a directory, which one, and why.
package struct FileError: Error, Equatable {
    /// What was to be done.
    package enum Action: String, Sendable {
        case make, open, read, write, replace
        /// To make what was written, or the names in a directory, last.
        case settle
    }

    package let action: Action
    package let path: String
    /// The errno. EFBIG: the file has more bytes than whoever reads it takes.
    package let reason: Int32

    /// `reason` is the last errno if none is given.
    package init(_ action: Action, _ path: String, reason: Int32 = errno) {
        self.action = action
        self.path = path
        self.reason = reason
    }

    /// What the system says of the reason.
    package var reasonText: String { errnoText(reason) }

    /// What happened, where and why, for those who know better than `sentence` what to do about it.
    package var text: String {
        action == .settle
            ? "cannot make \(path) durable: \(reasonText)" : "cannot \(action.rawValue) \(path): \(reasonText)"
    }

    /// What happened, where, why, and what an operator can do about it.
    package var sentence: String {
        switch reason {
        case ENOENT, ENOTDIR: text + "; make the directory that it is in"
        case EACCES, EPERM: text + "; give the user that this runs as its rights"
        case EROFS: text + "; mount its file system for writing"
        case ENOSPC, EDQUOT: text + "; make room on its file system"
        case EMFILE, ENFILE: text + "; raise the limit of open files (ulimit -n)"
        case EIO: text + "; the log of the kernel (dmesg) says what is wrong with the disk"
        case EFBIG: text + "; if Apus did not write it, move it away"
        case EISDIR: text + "; move the directory with this name away"
        default: text
        }
    }
}
