// The sweeps of a namespace on one reactor, one slice at a time.
internal import Base

extension NamespaceShard {
    /// One slice of the sweeps, if one is wanted.
    func sweepSlice(_ now: TurnTime) -> BackgroundWork {
        truncateSweep.slice(self, now)
    }

    /// Jobs that take turns: compaction, sweeps.
    static let jobCount = 2

    /// One slice of a job.
    func slice(ofJob job: Int, _ now: TurnTime) -> BackgroundWork { job == 0 ? compactSlice() : sweepSlice(now) }
}
