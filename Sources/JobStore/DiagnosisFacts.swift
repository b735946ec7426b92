import ProgressCore

/// What `why` read of a job and its surroundings, and what follows from it: a pure value.
struct DiagnosisFacts {
    /// Workers whose records are looked at, the newest signs of life first.
    static let workersRead = 1000
    /// Open children that are named.
    static let childrenNamed = 20

    static let fieldNames = [
        "phase", "queue", "owner", "attempt", "max_attempts", "created_at", "started_at", "claimed_at", "updated_at", "progress_at",
        "finished_at", "expires_at", "fence", "worker", "cancel", "error", "max_runtime_ms", "retried_as", "stalled", "children",
        "last_outcome",
    ]

    struct Worker {
        var id: String
        var queues: [String]
        var places: Int
        var jobs: Int
        var isDraining: Bool
    }

    let job: JobID
    let nowMs: Int
    var fields: [String: String] = [:]
    /// Bodies of events, oldest first.
    var milestones: [String] = []
    /// The hash `group:J`.
    var group: [String: String] = [:]

    var readyRank: Int?
    var ready = 0
    var dueMs: Int?
    var parkedRank: Int?
    var leaseMs: Int?
    var running = 0
    var isPaused = false
    var isDraining = false
    var queueLimit: Int?
    var tenantLimit: Int?
    var tenantRunning = 0
    var workers: [Worker] = []
    var openChildren: [JobDiagnosis.OpenChild] = []
    /// Its phase or holder changed while it was looked at.
    var hasMoved = false

    init(job: JobID, nowMs: Int) {
        self.job = job
        self.nowMs = nowMs
    }

    var phase: Phase { fields["phase"].flatMap(Phase.init(rawValue:)) ?? .queued }
    var owner: Owner { Owner(fields["owner"] ?? "") }
    var queue: String { fields["queue"] ?? "" }
    var isGroup: Bool { fields["children"] != nil }
    var isRunning: Bool { !phase.isTerminal && fields["fence"] != nil }
    var isWaiting: Bool { !phase.isTerminal && !isGroup && fields["fence"] == nil }
    var isUncertain: Bool { hasMoved || (isWaiting && isNowhere) }

    private var isNowhere: Bool { readyRank == nil && dueMs == nil && parkedRank == nil }

    func number(_ name: String) -> Int? { fields[name].flatMap { Int($0) } }
    private func since(_ name: String) -> Int { number(name).map { max(0, nowMs - $0) } ?? 0 }

    /// Children of the group by number, as many as a group may have.
    var childrenToRead: [JobID] {
        guard isGroup, !phase.isTerminal, let expected = group["expected"].flatMap({ Int($0) }) else { return [] }
        return (1...max(1, min(expected, StoreLimits.children))).compactMap { JobID("\(job.text)~\($0)") }
    }

    var diagnosis: JobDiagnosis {
        var reasons: [JobDiagnosis.Reason]
        if phase.isTerminal {
            reasons = endReasons
        } else if isGroup {
            reasons = cancelReasons + groupReasons
        } else if isRunning {
            reasons = runReasons
        } else {
            reasons = waitReasons
        }
        if let successor = fields["retried_as"].flatMap({ JobID($0) }) { reasons.append(.retriedAs(successor)) }
        return JobDiagnosis(
            job: job,
            owner: owner,
            phase: phase,
            queue: queue == Keys.heldQueue ? nil : queue,
            attempt: number("attempt") ?? 1,
            maxAttempts: number("max_attempts") ?? 1,
            atMs: nowMs,
            reasons: reasons,
            failures: milestones.compactMap { failure($0) }
        )
    }

    // MARK: Ended

    private var endReasons: [JobDiagnosis.Reason] {
        let ago = since("finished_at")
        switch phase {
        case .failed:
            let error = fields["error"] ?? "{}"
            return [
                .failed(
                    agoMs: ago,
                    code: JSONText.string("code", in: error) ?? "unknown",
                    message: JSONText.string("message", in: error) ?? "no reason is known"
                )
            ]
        case .cancelled:
            let request = fields["cancel"].flatMap { CancelRequest(json: $0) }
            let wasForced = fields["cancel"]?.hasSuffix(",\"forced\":true}") ?? false
            return [.cancelled(agoMs: ago, by: request?.by, reason: request?.reason, wasForced: wasForced)]
        default: return [.complete(agoMs: ago)]
        }
    }

    // MARK: Waiting

    private var waitReasons: [JobDiagnosis.Reason] {
        var reasons: [JobDiagnosis.Reason] = []
        if isPaused { reasons.append(.queuePaused(queue: queue)) }
        if isNowhere { reasons.append(.misplaced) }
        if let dueMs { reasons.append(delay(dueInMs: max(0, dueMs - nowMs))) }
        let serving = workers.filter { $0.queues.contains(queue) }
        let active = serving.filter { !$0.isDraining }
        if serving.isEmpty {
            reasons.append(.noWorker(queue: queue))
        } else if active.isEmpty {
            reasons.append(.workersDraining(queue: queue, workers: serving.count))
        }
        if let tenantLimit, tenantRunning >= tenantLimit, dueMs == nil {
            reasons.append(
                .tenantLimit(tenant: owner.tenant, running: tenantRunning, limit: tenantLimit, ahead: parkedRank)
            )
        } else if let parkedRank {
            reasons.append(.parked(tenant: owner.tenant, ahead: parkedRank))
        }
        if let queueLimit, running >= queueLimit { reasons.append(.queueLimit(queue: queue, running: running, limit: queueLimit)) }
        if let readyRank { reasons.append(.inLine(queue: queue, ahead: readyRank, ready: ready)) }
        if !active.isEmpty {
            let places = active.reduce(0) { $0 + $1.places }
            let busy = active.reduce(0) { $0 + min($1.jobs, $1.places) }
            reasons.append(
                busy >= places
                    ? .workersBusy(queue: queue, workers: active.count, slots: places)
                    : .workersFree(queue: queue, workers: active.count, slots: places, busy: busy)
            )
        }
        if isDraining { reasons.append(.queueDraining(queue: queue)) }
        if fields["started_at"] == nil, let end = number("expires_at") { reasons.append(.expires(inMs: max(0, end - nowMs))) }
        return reasons
    }

    private func delay(dueInMs: Int) -> JobDiagnosis.Reason {
        guard fields["started_at"] != nil else { return .delayed(dueInMs: dueInMs) }
        return .retryDelayed(
            attempt: number("attempt") ?? 1,
            dueInMs: dueInMs,
            code: fields["error"].flatMap { JSONText.string("code", in: $0) },
            message: fields["error"].flatMap { JSONText.string("message", in: $0) }
        )
    }

    // MARK: Running

    private var cancelReasons: [JobDiagnosis.Reason] {
        guard let json = fields["cancel"], let request = CancelRequest(json: json) else { return [] }
        let atMs = JSONText.member("at", of: json).flatMap { Int($0) } ?? nowMs
        return [.cancelRequested(by: request.by, reason: request.reason, sinceMs: max(0, nowMs - atMs))]
    }

    private var runReasons: [JobDiagnosis.Reason] {
        var reasons = cancelReasons
        let worker = fields["worker"] ?? ""
        let isHeld = queue == Keys.heldQueue
        let left = leaseMs.map { $0 - nowMs } ?? 0
        if left <= 0 {
            reasons.append(.leaseExpired(worker: worker, sinceMs: -left))
        } else if !isHeld, !workers.contains(where: { $0.id == worker }), workers.count < Self.workersRead {
            reasons.append(.workerGone(worker: worker, leaseLeftMs: left))
        }
        // Before the first progress that is the claim. (`updated_at` tells of every write: a bar that moves by the clock, a cancel.)
        let age = since(fields["progress_at"] != nil ? "progress_at" : "claimed_at")
        if fields["stalled"] == "1" { reasons.append(.stalled(progressAgeMs: age)) }
        let (since, leaseLeft) = (since("claimed_at"), max(0, left))
        reasons.append(
            isHeld
                ? .reporting(producer: worker, sinceMs: since, leaseLeftMs: leaseLeft, progressAgeMs: age)
                : .running(worker: worker, sinceMs: since, leaseLeftMs: leaseLeft, progressAgeMs: age)
        )
        if let most = number("max_runtime_ms"), let claimed = number("claimed_at") {
            reasons.append(.runtimeLimit(leftMs: max(0, claimed + most - nowMs)))
        }
        return reasons
    }

    private var groupReasons: [JobDiagnosis.Reason] {
        func count(_ name: String) -> Int { group[name].flatMap { Int($0) } ?? 0 }
        let counts = JobDiagnosis.GroupCounts(
            expected: count("expected"),
            made: count("made"),
            waiting: count("waiting"),
            running: count("running"),
            complete: count("complete"),
            failed: count("failed"),
            cancelled: count("cancelled")
        )
        let named = Array(openChildren.prefix(Self.childrenNamed))
        var reasons: [JobDiagnosis.Reason] = [.group(counts, open: named, isCut: named.count < openChildren.count)]
        if counts.waiting + counts.running == 0, let end = number("expires_at") { reasons.append(.expires(inMs: max(0, end - nowMs))) }
        return reasons
    }

    // MARK: Earlier attempts

    /// The failure that a milestone tells of: that of an attempt which is tried again (QUEUED with an error; the event belongs to
    /// the next attempt) or the last one (FAILED).
    private func failure(_ body: String) -> JobDiagnosis.AttemptFailure? {
        guard let error = JSONText.member("error", of: body), let attempt = JSONText.member("attempt", of: body).flatMap({ Int($0) }),
            let atMs = JSONText.member("at", of: body).flatMap({ Int($0) })
        else { return nil }
        return JobDiagnosis.AttemptFailure(
            attempt: JSONText.string("phase", in: body) == Phase.queued.rawValue ? attempt - 1 : attempt,
            atMs: atMs,
            code: JSONText.string("code", in: error) ?? "unknown",
            message: JSONText.string("message", in: error) ?? ""
        )
    }
}
