import JobStore
import ProgressCore
import RedisLink
import Synchronization
import TestSupport
import Testing

/// What is held against each other when the last job has ended.
extension Soak {
    func check() async throws {
        while try await readEndedOnce() > 0 {}
        let (accepted, ended, workers) = state.withLock { ($0.accepted, $0.ended, $0.workers) }
        let violations = watcher.violations
        #expect(violations.isEmpty, "seed \(seed): \(violations.count) violations, first \(violations.prefix(3))")
        #expect(ended.count == accepted.count, "seed \(seed): \(ended.count) ends of \(accepted.count) jobs in the stream")
        let reported = SoakReport.byJob(workers, in: deployment.directory)
        var fences: [String: JobID] = [:]
        var wrong: [String] = []
        for job in accepted {
            guard let trace = watcher.trace(job.text), let end = trace.end, let snapshot = try await store.snapshot(job) else {
                wrong.append("\(job): no end")
                continue
            }
            if ended[job.text] != [end.rawValue] { wrong.append("\(job): \(end) to its watcher, \(ended[job.text] ?? []) in the stream") }
            if snapshot.phase != end || snapshot.seq != trace.seq { wrong.append("\(job): \(end) to its watcher, \(snapshot.phase) kept") }
            wrong += Self.staleEnds(of: job, trace, snapshot, reported[job.text] ?? [])
            if let fence = snapshot.fields["last_fence"], !fence.isEmpty, let other = fences.updateValue(job, forKey: fence) {
                wrong.append("\(job): claimed under \(fence), as \(other) was")
            }
        }
        #expect(wrong.isEmpty, "seed \(seed): \(wrong.count) jobs, first \(wrong.prefix(3))")
        for outcome in ["complete", "failed", "cancelled"] {
            #expect(reported.values.joined().contains { $0.outcome == outcome }, "seed \(seed): no worker told of a job \(outcome)")
        }
        try await checkPlaces(accepted)
        let audit = try await store.audit(AuditOptions(fix: false))
        #expect(audit.isClean && audit.jobs == accepted.count, "seed \(seed): \(audit.findings.prefix(3).map(\.message))")
        try await checkFairness()
    }

    /// No job was ended by who had lost it. A good end and a failure that was played are signed by who wrote them. Of a cancel the job
    /// keeps no signature, nor of a limit; but a worker writes into its log what Redis took from it: so whoever says that it ended a job
    /// must be the one that had it last, in the attempt that was the last. Who fails an attempt before that only hands it on.
    static func staleEnds(of job: JobID, _ trace: SoakWatcher.Trace, _ snapshot: JobSnapshot, _ reports: [SoakReport]) -> [String] {
        let owner = snapshot.fields["worker"] ?? "nobody"
        let last = Int(snapshot.fields["attempt"] ?? "") ?? 0
        var wrong: [String] = []
        if let finisher = trace.finisher, finisher.worker != owner {
            wrong.append("\(job): finished by \(finisher.worker), which had lost it to \(owner)")
        }
        let error = snapshot.phase == .failed ? snapshot.fields["error"] ?? "" : ""
        if error.contains("played_"), !error.contains("\"\(owner) \(last)\"") {
            wrong.append("\(job): failed with \(error), \(owner) had attempt \(last)")
        }
        for report in reports {
            switch report.outcome {
            case "lost", "released": continue
            case "failed" where report.attempt < last: continue
            // A failure that meets a cancel takes effect as that.
            case "failed" where snapshot.phase == .cancelled || snapshot.phase == .failed: break
            case snapshot.phase.rawValue.lowercased(): break
            default: wrong.append("\(job): \(report.worker) was told that it is \(report.outcome), it is \(snapshot.phase)")
            }
            if report.worker != owner || report.attempt != last {
                wrong.append("\(job): \(report.worker) ended attempt \(report.attempt), \(owner) had attempt \(last)")
            }
        }
        return wrong
    }

    /// Nothing stands in any line, and the counters add up.
    private func checkPlaces(_ accepted: [JobID]) async throws {
        for status in try await store.queues() where Self.queues.contains(status.name) {
            #expect(status.ready + status.delayed + status.running == 0, "seed \(seed): \(status)")
            let reply = try await store.redis.send(["HGETALL", .string("headway:{0}:queue:\(status.name):meta")])
            let meta = Self.hash(reply)
            let ends = ["complete", "failed", "cancelled"].reduce(0) { $0 + (Int(meta[$1] ?? "0") ?? 0) }
            let mine = accepted.count { Self.queue(of: $0) == status.name }
            #expect(Int(meta["submitted"] ?? "") == mine && ends == mine, "seed \(seed): \(mine) jobs, counted \(meta)")
            #expect(try await store.redis.send(["ZCARD", .string("headway:{0}:queue:\(status.name):deadlines")]).int == 0)
            for tenant in Self.tenants + FairQueue.all.flatMap(\.tenants).map(\.name) {
                let counts = Self.hash(
                    try await store.redis.send(["HGETALL", .string("headway:{0}:queue:\(status.name):tenant:\(tenant)")])
                )
                #expect((counts["queued"] ?? "0") == "0" && (counts["running"] ?? "0") == "0", "seed \(seed): \(tenant) \(counts)")
            }
        }
    }

    private static func hash(_ reply: RESPValue) -> [String: String] {
        let flat = (reply.array ?? []).map { $0.string ?? "" }
        var out: [String: String] = [:]
        for index in stride(from: 0, to: flat.count - 1, by: 2) { out[flat[index]] = flat[index + 1] }
        return out
    }
}

/// What a worker says of the end of a job in its log: `… job ended attempt=1 job.id=s7 outcome=complete`.
struct SoakReport {
    let worker: String
    let attempt: Int
    let outcome: String

    /// All that these workers wrote, by job.
    static func byJob(_ workers: [String], in directory: String) -> [String: [SoakReport]] {
        var reports: [String: [SoakReport]] = [:]
        for worker in workers {
            for line in (readFile("\(directory)/\(worker).err") ?? "").split(separator: "\n") where line.contains(" job ended ") {
                var values: [Substring: Substring] = [:]
                for word in line.split(separator: " ") {
                    let pair = word.split(separator: "=", maxSplits: 1)
                    if pair.count == 2 { values[pair[0]] = pair[1] }
                }
                // The last line of a worker that was killed may be cut short.
                guard let job = values["job.id"], let attempt = values["attempt"].flatMap({ Int($0) }), let outcome = values["outcome"]
                else { continue }
                reports[String(job), default: []].append(SoakReport(worker: worker, attempt: attempt, outcome: String(outcome)))
            }
        }
        return reports
    }
}
