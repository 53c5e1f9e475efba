// The queries of a node: those that run, and the last that have ended. Invariants:
// 1. No two long or background queries that run have the same id, unless it is 0.
// 2. `done` holds the latest last.
internal import Base
internal import CBase
internal import Wire

/// What `query-show` and `query-abort` look at. Any thread; behind a lock that is held for list work only.
package final class QueryRegistry: @unchecked Sendable {
    private let word: UnsafeMutablePointer<UInt32>
    private var active: [Query] = []
    private var done: [Query] = []

    package init() {
        word = .allocate(capacity: 1)
        word.initialize(to: 0)
    }

    deinit { word.deallocate() }

    private func locked<Result>(_ body: () -> Result) -> Result {
        apus_lock(word)
        defer { apus_unlock(word) }
        return body()
    }

    /// A query begins. False: one with its id runs, or as many run as can.
    func begin(_ query: Query) -> Bool {
        locked {
            let id = query.fields.taskID
            guard active.count < Limits.queriesMax, id == 0 || !active.contains(where: { $0.fields.taskID == id })
            else { return false }
            active.append(query)
            return true
        }
    }

    /// A query that has begun has ended; `doneMax` of those that have are remembered (`query-max-done`).
    func finish(_ query: Query, doneMax: Int) {
        locked {
            active.removeAll { $0 === query }
            done.append(query)
            if done.count > doneMax { done.removeFirst(done.count - doneMax) }
        }
    }

    /// All of them: running, then ended.
    package var all: [Query] { locked { active + done } }

    /// How many run.
    package var activeCount: Int { locked { active.count } }

    /// The query of that id, a running one first.
    package func query(_ id: UInt64) -> Query? { all.first { $0.fields.taskID == id } }

    /// Ends a running query; false if there is none of that id.
    package func abort(_ id: UInt64) -> Bool {
        locked { active.first { $0.fields.taskID == id } }?.end(.userAborted) ?? false
    }

    /// Ends all that run; returns how many.
    package func abortAll() -> Int {
        locked { active }.reduce(0) { $0 + ($1.end(.userAborted) ? 1 : 0) }
    }
}
