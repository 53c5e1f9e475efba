// The sweeps of a namespace on one reactor, one slice at a time.
internal import Base

extension NamespaceShard {
    /// One slice of the sweeps, if one is wanted.
    func sweepSlice(_ now: TurnTime) -> BackgroundWork {
        .none
    }
}
