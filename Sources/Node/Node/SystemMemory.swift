internal import Files
internal import Glibc

/// Memory of the machine and of this process, from /proc.
struct SystemMemory {
    var totalKilobytes: UInt64 = 0
    var availableKilobytes: UInt64 = 0
    var residentKilobytes: UInt64 = 0

    /// Share of the machine's memory that is available, in percent.
    var freePercent: UInt64 { totalKilobytes > 0 ? availableKilobytes * 100 / totalKilobytes : 0 }

    /// Reads it now; what cannot be read is 0.
    static func now() -> SystemMemory {
        var memory = SystemMemory()
        for line in readSmallFile("/proc/meminfo").split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count >= 2, let value = UInt64(words[1]) else { continue }
            if words[0] == "MemTotal:" { memory.totalKilobytes = value }
            if words[0] == "MemAvailable:" { memory.availableKilobytes = value }
        }
        let pages = readSmallFile("/proc/self/statm").split(separator: " ")
        if pages.count > 1, let resident = UInt64(pages[1]) {
            memory.residentKilobytes = resident * UInt64(sysconf(Int32(_SC_PAGESIZE))) / 1024
        }
        return memory
    }
}
