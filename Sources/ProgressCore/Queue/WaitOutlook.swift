/// Why nothing is said of a wait.
public enum WaitReason: String, Sendable, Hashable, CaseIterable {
    /// No live worker takes jobs of the queue.
    case noWorker = "no_worker"
    /// Somebody stopped the queue.
    case paused
    /// The owner runs as many jobs as it may: one of them must end first.
    case tenantLimit = "tenant_limit"
    /// Its time has not come: a delayed submit, or a retry in its back-off.
    case notDue = "not_due"
    /// How long such jobs take is not known well enough yet.
    case learning
    /// Further back than forecasts reach.
    case farBack = "far_back"
}

/// What can be said of how long a job waits until it begins.
public enum WaitOutlook: Sendable, Hashable {
    /// Milliseconds; the bounds are those of an 80 % interval.
    case wait(ms: Int, lowMs: Int, highMs: Int)
    case unknown(WaitReason)
}

extension WaitOutlook {
    public init(_ wait: QueueForecast.Wait) {
        func whole(_ ms: Double) -> Int { ms.isFinite ? Int(min(max(ms, 0), Double(ProgressLimits.durationMs)) + 0.5) : 0 }
        self = wait.isEstimating ? .unknown(.learning) : .wait(ms: whole(wait.waitMs), lowMs: whole(wait.lowMs), highMs: whole(wait.highMs))
    }
}
