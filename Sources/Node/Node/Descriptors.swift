internal import Base
internal import Configuration
internal import Glibc

/// File descriptors of this process.
enum Descriptors {
    /// Descriptors a node needs beside its connections and the two of each reactor.
    private static let reserve = 64

    /// Makes room for the clients that the configuration allows, raising the soft limit as far as it goes.
    /// - Returns: how many clients fit: `proto-fd-max`, or fewer if the operator did not ask for that number.
    static func clientsMax(_ service: ServiceConfiguration) throws(StartError) -> Int {
        let others = Limits.adminConnectionsMax + reserve + 2 * service.serviceThreads
        let needed = rlim_t(service.protoFdMax + others)
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0, limit.rlim_cur < needed else {
            return service.protoFdMax
        }
        let hard = limit.rlim_max
        limit.rlim_cur = min(needed, hard)
        _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        if hard >= needed { return service.protoFdMax }
        guard !service.isProtoFdMaxWritten, Int(hard) > 2 * others else {
            throw StartError(
                "proto-fd-max \(service.protoFdMax) needs \(needed) file descriptors, this process may have \(hard):"
                    + " raise the limit (ulimit -n \(needed), or LimitNOFILE in the unit) or lower proto-fd-max")
        }
        return Int(hard) - others
    }
}
