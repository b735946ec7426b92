public import ProgressCore

/// One setting of a queue. Limits and pauses act in each partition for itself.
public enum QueueSetting: Sendable, Hashable {
    /// Nothing is given to workers.
    case paused(Bool)
    /// New jobs are refused; what is in the queue runs to its end.
    case draining(Bool)
    /// Most waiting jobs; nil: no limit.
    case maxDepth(Int?)
    /// Most running jobs.
    case maxRunning(Int?)
    /// Most waiting and most running jobs of any one tenant.
    case tenantMaxQueued(Int?)
    case tenantMaxRunning(Int?)
    /// The same for one tenant, before the general ones.
    case maxQueuedOf(tenant: String, Int?)
    case maxRunningOf(tenant: String, Int?)
    /// A tenant's share when several wait, 1…240; nil: 1.
    case weightOf(tenant: String, Int?)

    /// Field of `queue:Q:meta` and its text, '' to remove it.
    var field: (name: String, value: String) {
        func text(_ number: Int?) -> String { number.map(String.init) ?? "" }
        return switch self {
        case .paused(let isOn): ("paused", isOn ? "1" : "")
        case .draining(let isOn): ("draining", isOn ? "1" : "")
        case .maxDepth(let number): ("max_depth", text(number))
        case .maxRunning(let number): ("max_running", text(number))
        case .tenantMaxQueued(let number): ("tenant_max_queued", text(number))
        case .tenantMaxRunning(let number): ("tenant_max_running", text(number))
        case .maxQueuedOf(let tenant, let number): ("max_queued:\(tenant)", text(number))
        case .maxRunningOf(let tenant, let number): ("max_running:\(tenant)", text(number))
        case .weightOf(let tenant, let number): ("weight:\(tenant)", text(number))
        }
    }
}

/// Where jobs of a queue are removed from.
public enum PurgePlace: String, Sendable, CaseIterable {
    /// Waiting jobs: each ends CANCELLED.
    case ready, delayed, parked
    /// Dead letters: forgotten with all their keys.
    case dead
}

public enum RetireOutcome: Sendable, Equatable {
    /// The job is tried again as this one: the id given, or the one an earlier call noted.
    case retriedAs(JobID)
    case absent
    /// It has not ended.
    case running(Phase)
}

/// A job that failed for good, as its queue keeps it.
public struct DeadLetter: Sendable, Hashable {
    public var job: JobID
    public var finishedAtMs: Int
    public var pipeline: String
    public var owner: Owner
    public var attempts: Int
    /// `{"code":…,"message":…,"recoverable":…}`
    public var errorJSON: String
}
