/// What an audit found wrong with the jobs and queues of a deployment.
public struct AuditReport: Sendable, Hashable {
    /// Jobs and keys that were looked at.
    public var jobs = 0
    public var keys = 0
    /// Confirmed findings, at most `AuditLimits.findings`.
    public var findings: [AuditFinding] = []
    /// There were more.
    public var isCut = false
    /// Queues whose tenants' counts were checked in sum only, because their lines are too long to be counted in one step.
    public var uncounted: [String] = []

    /// Findings that are still there.
    public var left: Int { findings.count { !$0.isRepaired } }
    public var repaired: Int { findings.count { $0.isRepaired } }
    public var isClean: Bool { left == 0 && !isCut }

    public init() {}
}

/// One thing that should not be.
public struct AuditFinding: Sendable, Hashable {
    /// The raw value is stable: scripts and alerts may go by it.
    public enum Code: String, Sendable, CaseIterable {
        // A job
        case corrupt
        case bodyIsNotTheLastEvent = "body_is_not_the_last_event"
        case noTTL = "no_ttl"
        case inTwoPlaces = "in_two_places"
        case inLineButNotWaiting = "in_line_but_not_waiting"
        case waitsNowhere = "waits_nowhere"
        case tenantUnknown = "tenant_unknown"
        case runsWithoutLease = "runs_without_lease"
        case leaseButNotRunning = "lease_but_not_running"
        case noDeadline = "no_deadline"
        case endedWithDeadline = "ended_with_deadline"
        case placeWithoutJob = "place_without_job"
        case groupMiscounted = "group_miscounted"
        // A queue
        case nobodySweeps = "nobody_sweeps"
        case noWakeToken = "no_wake_token"
        case parkedMiscounted = "parked_miscounted"
        case tenantMiscounted = "tenant_miscounted"
        case tenantsDoNotAddUp = "tenants_do_not_add_up"
        case queueUnregistered = "queue_unregistered"
        // The deployment
        case schemaMissing = "schema_missing"
        case workerLeftover = "worker_leftover"
        case unknownKey = "unknown_key"
    }

    public let code: Code
    /// The job, the tenant, the queue, the worker or the key it is about.
    public let subject: String
    /// The queue it was found in, where there is one.
    public let queue: String?
    public var isRepaired: Bool

    /// A sentence for people.
    public var message: String {
        let place = queue.map { " of the queue \($0)" } ?? ""
        return switch code {
        case .corrupt: "the job \(subject) lacks fields that every job has: look at it, then delete its keys"
        case .bodyIsNotTheLastEvent: "the last event of the job \(subject) is not the one its number says; its next change mends that"
        case .noTTL: "\(subject) has no TTL"
        case .inTwoPlaces: "the job \(subject) stands in several lines"
        case .inLineButNotWaiting: "the job \(subject) stands in a line and does not wait"
        case .waitsNowhere: "the job \(subject) waits and stands in no line"
        case .tenantUnknown: "the job \(subject) is parked for a tenant nobody looks after"
        case .runsWithoutLease: "the job \(subject) runs without a lease"
        case .leaseButNotRunning: "the job \(subject) has a lease and does not run"
        case .noDeadline: "nobody will look at the job \(subject) again"
        case .endedWithDeadline: "the job \(subject) has ended and is to be looked at again"
        case .placeWithoutJob: "\(subject)\(place) is no job any more"
        case .groupMiscounted: "the counts of the group \(subject) are not those of its children"
        case .nobodySweeps: "nobody sweeps the queue \(subject): expired leases and deadlines wait; run a gateway or a worker"
        case .noWakeToken: "jobs wait in the queue \(subject) and nothing wakes its workers"
        case .parkedMiscounted: "the count of parked jobs\(place) is wrong"
        case .tenantMiscounted: "the counts of the tenant \(subject)\(place) are wrong"
        case .tenantsDoNotAddUp:
            "the counts of the tenants of the queue \(subject) are not the length of its line, which is too long to say whose: "
                + "audit again with --fix when it has \(AuditLimits.countedJobs) jobs or fewer"
        case .queueUnregistered: "the queue \(subject) has jobs and is not registered"
        case .schemaMissing: "the deployment's schema version or partition count is missing or another's"
        case .workerLeftover: "the worker \(subject) has been gone for more than a day and is still listed"
        case .unknownKey: "\(subject) is no key of ours and has no TTL"
        }
    }
}

extension AuditReport {
    /// `{"clean","jobs","keys","left","repaired","cut","uncounted":[…],"findings":[{"code","subject","queue"?,"repaired","message"}]}`
    public var json: String {
        let items = findings.map { finding in
            "{\"code\":\"\(finding.code.rawValue)\",\"subject\":\(JSONText.quoted(finding.subject))"
                + (finding.queue.map { ",\"queue\":\(JSONText.quoted($0))" } ?? "")
                + ",\"repaired\":\(finding.isRepaired),\"message\":\(JSONText.quoted(finding.message))}"
        }
        return "{\"clean\":\(isClean),\"jobs\":\(jobs),\"keys\":\(keys),\"left\":\(left),\"repaired\":\(repaired),\"cut\":\(isCut),"
            + "\"uncounted\":[\(uncounted.map(JSONText.quoted).joined(separator: ","))],\"findings\":[\(items.joined(separator: ","))]}"
    }
}
