import ProgressCore

extension JobDiagnosis {
    /// `{"job","phase","queue"?,"attempt","max_attempts","at","reasons":[{"code","message",…}],"failures":[{"attempt","at","code","message"}]}`
    public var json: String {
        var members: [(String, JSONValue)] = [("job", .text(job.text)), ("phase", .text(phase.rawValue))]
        if let queue { members.append(("queue", .text(queue))) }
        members += [
            ("attempt", .number(attempt)), ("max_attempts", .number(maxAttempts)), ("at", .number(atMs)),
            ("reasons", .list(reasons.map { .object([("code", .text($0.code)), ("message", .text($0.message))] + $0.members) })),
            (
                "failures",
                .list(
                    failures.map {
                        .object([
                            ("attempt", .number($0.attempt)), ("at", .number($0.atMs)), ("code", .text($0.code)),
                            ("message", .text($0.message)),
                        ])
                    }
                )
            ),
        ]
        return JSONValue.object(members).text
    }
}

/// What an answer is made of.
private indirect enum JSONValue {
    case text(String)
    case number(Int)
    case flag(Bool)
    case list([JSONValue])
    case object([(String, JSONValue)])

    var text: String {
        switch self {
        case .text(let text): JSONText.quoted(text)
        case .number(let number): "\(number)"
        case .flag(let flag): flag ? "true" : "false"
        case .list(let items): "[\(items.map(\.text).joined(separator: ","))]"
        case .object(let members): "{\(members.map { "\(JSONText.quoted($0)):\($1.text)" }.joined(separator: ","))}"
        }
    }
}

extension JobDiagnosis.Reason {
    /// The parameters behind the sentence.
    fileprivate var members: [(String, JSONValue)] {
        func optional(_ name: String, _ text: String?) -> [(String, JSONValue)] { text.map { [(name, .text($0))] } ?? [] }
        switch self {
        case .complete(let ago): return [("ago_ms", .number(ago))]
        case .failed(let ago, let code, let message):
            return [("ago_ms", .number(ago)), ("error", .object([("code", .text(code)), ("message", .text(message))]))]
        case .cancelled(let ago, let by, let reason, let wasForced):
            return [("ago_ms", .number(ago))] + optional("by", by) + optional("reason", reason) + [("forced", .flag(wasForced))]
        case .retriedAs(let job): return [("job", .text(job.text))]
        case .queuePaused(let queue), .noWorker(let queue), .queueDraining(let queue): return [("queue", .text(queue))]
        case .workersDraining(let queue, let workers): return [("queue", .text(queue)), ("workers", .number(workers))]
        case .queueLimit(let queue, let running, let limit):
            return [("queue", .text(queue)), ("running", .number(running)), ("limit", .number(limit))]
        case .tenantLimit(let tenant, let running, let limit, let ahead):
            return [("tenant", .text(tenant)), ("running", .number(running)), ("limit", .number(limit))]
                + (ahead.map { [("ahead", .number($0))] } ?? [])
        case .parked(let tenant, let ahead): return [("tenant", .text(tenant)), ("ahead", .number(ahead))]
        case .delayed(let due): return [("due_in_ms", .number(due))]
        case .retryDelayed(let attempt, let due, let code, let message):
            let error: [(String, JSONValue)] =
                code.map { [("error", .object([("code", .text($0)), ("message", .text(message ?? ""))]))] } ?? []
            return [("attempt", .number(attempt)), ("due_in_ms", .number(due))] + error
        case .inLine(let queue, let ahead, let ready):
            return [
                ("queue", .text(queue)), ("queue_position", .number(ahead)), ("queue_ahead", .number(ahead)), ("ready", .number(ready)),
            ]
        case .workersBusy(let queue, let workers, let slots):
            return [("queue", .text(queue)), ("workers", .number(workers)), ("places", .number(slots))]
        case .workersFree(let queue, let workers, let slots, let busy):
            return [("queue", .text(queue)), ("workers", .number(workers)), ("places", .number(slots)), ("taken", .number(busy))]
        case .misplaced: return []
        case .expires(let left): return [("in_ms", .number(left))]
        case .cancelRequested, .leaseExpired, .workerGone, .stalled, .running, .reporting, .runtimeLimit: return runMembers
        case .group(let counts, let open, let isCut): return groupMembers(counts, open, isCut)
        }
    }

    private var runMembers: [(String, JSONValue)] {
        switch self {
        case .cancelRequested(let by, let reason, let since):
            [("by", .text(by))] + (reason.map { [("reason", .text($0))] } ?? []) + [("since_ms", .number(since))]
        case .leaseExpired(let worker, let since): [("worker", .text(worker)), ("since_ms", .number(since))]
        case .workerGone(let worker, let left): [("worker", .text(worker)), ("lease_left_ms", .number(left))]
        case .stalled(let age): [("progress_age_ms", .number(age))]
        case .running(let worker, let since, let left, let age):
            [
                ("worker", .text(worker)), ("since_ms", .number(since)), ("lease_left_ms", .number(left)),
                ("progress_age_ms", .number(age)),
            ]
        case .reporting(let producer, let since, let left, let age):
            [
                ("producer", .text(producer)), ("since_ms", .number(since)), ("lease_left_ms", .number(left)),
                ("progress_age_ms", .number(age)),
            ]
        case .runtimeLimit(let left): [("left_ms", .number(left))]
        default: []
        }
    }

    private func groupMembers(_ counts: JobDiagnosis.GroupCounts, _ open: [JobDiagnosis.OpenChild], _ isCut: Bool) -> [(String, JSONValue)]
    {
        [
            ("expected", .number(counts.expected)), ("made", .number(counts.made)), ("waiting", .number(counts.waiting)),
            ("running", .number(counts.running)), ("complete", .number(counts.complete)), ("failed", .number(counts.failed)),
            ("cancelled", .number(counts.cancelled)),
            ("open", .list(open.map { .object([("job", .text($0.job.text)), ("phase", .text($0.phase.rawValue))]) })),
            ("open_cut", .flag(isCut)),
        ]
    }
}
