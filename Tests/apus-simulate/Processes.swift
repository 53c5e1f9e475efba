// What can be simulated.
internal import Simulation

/// The first is what runs if nothing is said.
nonisolated(unsafe) let processes: [(name: String, maker: ProcessMaker)] = [
    ("cluster", { ClusterProcess($0) }), ("toy", { ToyProcess($0) }),
]
