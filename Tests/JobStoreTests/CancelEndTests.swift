import JobStore
import NIOCore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// A cancel was asked of a running job: every way in which it can end then, as its worker, its tenant and its watchers see it.
@Suite(.timeLimit(.minutes(5))) struct CancelEndTests {
    typealias Running = CancelStateTests.Running

    enum End: String, CaseIterable, Sendable {
        case leaseLostToAReap, leaseLostToAClaim, failed, failedForGood, handedBack, completed, acknowledged, forced

        /// What the job is then.
        var phase: Phase { self == .completed ? .complete : .cancelled }

        /// What brings it about, and what its worker is told; told again, when the answer was lost.
        func happen(_ fixture: StoreFixture, _ lease: Lease) async throws {
            let (store, queue) = (fixture.store, lease.queue)
            switch self {
            case .leaseLostToAReap:
                try await fixture.loseLease(lease)
                #expect(try await store.reap(queue: queue) == report(ended: 1))
            case .leaseLostToAClaim:
                try await fixture.loseLease(lease)
                // Other workers claim: one looks for expired leases once in ten milliseconds.
                var number = 0
                try await eventually("a claim looks at the leases") {
                    number += 1
                    _ = try await store.claim(queue: queue, worker: "w2", nonce: "\(lease.job)-\(number)")
                    return try await fixture.snapshot(lease.job).phase.isTerminal
                }
            case .failed, .failedForGood:
                let error = JobError(code: "x", message: "y", isRecoverable: self == .failed)
                for _ in 0..<2 { #expect(try await store.fail(lease, error: error, stagesMs: [("load", 3)]) == .dead) }
            case .handedBack:
                for _ in 0..<2 { #expect(try await store.release(lease) == .held) }
            case .completed:
                for result in ["{\"n\":1}", "{\"n\":2}"] {
                    #expect(try await store.finish(lease, as: .complete, resultJSON: result, stagesMs: []) == .done)
                }
            case .acknowledged:
                for _ in 0..<2 { #expect(try await store.finish(lease, as: .cancelled, resultJSON: nil, stagesMs: []) == .done) }
            case .forced:
                let deadlines = RedisArgument.string("headway:{0}:queue:\(queue):deadlines")
                _ = try await fixture.redis.send(["ZADD", deadlines, "XX", "1", .string(lease.job.text)])
                #expect(try await store.reap(queue: queue) == report(ended: 1))
            }
        }

        private func report(ended: Int) -> ReapReport {
            var report = ReapReport()
            report.ended = ended
            return report
        }

        /// The ends that a worker whose answer was lost, or that acts too late, is still told to be so: the one that is true.
        func expectTheTruth(_ fixture: StoreFixture, _ lease: Lease) async throws {
            let store = fixture.store
            let isCancelled: Set<End> = [.leaseLostToAReap, .leaseLostToAClaim, .acknowledged, .forced]
            let done: FinishStatus = isCancelled.contains(self) ? .done : .lost
            #expect(try await store.finish(lease, as: .cancelled, resultJSON: nil, stagesMs: []) == done)
            let complete = try await store.finish(lease, as: .complete, resultJSON: "{}", stagesMs: [])
            #expect(complete == (self == .completed ? .done : .lost))
            let error = JobError(code: "x", message: "y", isRecoverable: true)
            let fail = try await store.fail(lease, error: error, stagesMs: [])
            #expect(fail == (self == .failed || self == .failedForGood ? .dead : .lost))
            #expect(try await store.release(lease) == (self == .handedBack ? .held : .lost))
            #expect(try await store.heartbeat(lease) == .lost)
            #expect(try await store.advance(lease, write: 99, to: .generating(99)) == .lost)
        }
    }

    @Test(arguments: Running.allCases) func anAskedJobEndsAsItsWorkerDoes(state: Running) async throws {
        try await StoreFixture.with(settings: CancelStateTests.settings) { fixture in
            try await fixture.store.registerQueues(["gpu"])
            // One job of the tenant at a time: another waits for the place.
            try await fixture.store.configure(queue: "gpu", [.maxRunningOf(tenant: "acme", 1)])
            // No claim looks for the leases of producers, and they have no line to go back to.
            let ends = End.allCases.filter { state != .progressOnly || ($0 != .leaseLostToAClaim && $0 != .handedBack) }
            let jobs = try ends.map { try fixture.job(state.job($0.rawValue)) }
            try await EventRecorder.listening(fixture, to: jobs) { recorder in
                for (end, job) in zip(ends, jobs) { try await play(fixture, state, end, job, recorder) }
            }
        }
    }

    private func play(
        _ fixture: StoreFixture,
        _ state: Running,
        _ end: End,
        _ job: JobID,
        _ recorder: EventRecorder
    ) async throws {
        let (store, name) = (fixture.store, "\(end) \(state)")
        let lease = try await state.make(fixture, end.rawValue)
        let parked = try await CancelStateTests.submit(fixture, "next-\(end)")
        let earliest = try await fixture.now()
        #expect(try await store.cancel(job, by: "me", reason: CancelStateTests.reason) == .requested(first: true), "\(name)")
        let latest = try await fixture.now()
        let before = try await JobStanding.of(job, fixture)
        if state != .progressOnly { #expect(before.parked == 1 && before.running == 1, "\(name)") }
        try await end.happen(fixture, lease)

        let after = try await JobStanding.of(job, fixture)
        #expect(after.fields["phase"] == end.phase.rawValue && after.ends == [end.phase.rawValue], "\(name): \(after)")
        try CancelStateTests.expectRequest(
            after.fields["cancel"],
            between: earliest,
            and: latest,
            isForced: end == .forced,
            name
        )
        let seq = (Int(before.fields["seq"] ?? "") ?? 0) + 1
        #expect(after.fields["seq"] == "\(seq)" && after.places == [:], "\(name): \(after.places)")
        #expect(after.fields["result"] == (end == .completed ? "{\"n\":1}" : nil), "\(name)")
        #expect(after.fields["percent"] == (end == .completed ? "100.0" : before.fields["percent"]), "\(name)")
        #expect(after.fields["attempt"] == before.fields["attempt"] && after.fields["error"] == before.fields["error"], "\(name)")
        for field in ["fence", "score", "write_no"] { #expect(after.fields[field] == nil, "\(name): \(field)") }
        #expect(after.cancelled == before.cancelled + (end == .completed ? 0 : 1), "\(name)")
        try await CancelStateTests.expectOwnTTL(fixture, job, name)

        let body = after.fields["body"] ?? ""
        #expect(body.contains("\"cancel\":\(after.fields["cancel"] ?? "?")"), "\(name): \(body)")
        #expect(after.milestones == before.milestones + [body], "\(name)")
        let events = try await recorder.events(job, upTo: seq)
        expectTruthful(events, try await fixture.snapshot(job), name)
        #expect(events.last.map { $0.kind == .terminal && $0.hasCancel } == true, "\(name)")

        #expect(try await store.cancel(job, by: "you", reason: nil) == .alreadyEnded(end.phase), "\(name)")
        try await end.expectTheTruth(fixture, lease)
        #expect(try await JobStanding.of(job, fixture).fields == after.fields, "\(name)")
        if state == .childOfAGroup {
            #expect(try await fixture.snapshot(fixture.job(end.rawValue)).phase == end.phase, "\(name): its group")
        }
        try await expectTheNextRuns(fixture, parked, isRunning: end == .leaseLostToAClaim, name)
        #expect(try await fixture.findings() == [], "\(name)")
    }

    /// The place that became free is the next one's.
    private func expectTheNextRuns(_ fixture: StoreFixture, _ next: JobID, isRunning: Bool, _ name: String) async throws {
        let standing = try await JobStanding.of(next, fixture)
        #expect(standing.parked == 0 && standing.places["parked:acme"] == nil, "\(name)")
        if isRunning {
            // Who took the lease away took this job, too.
            let fields = standing.fields
            #expect(fields["worker"] == "w2" && standing.queued == 0 && standing.running == 1, "\(name): \(fields)")
            let lease = Lease(job: next, queue: "gpu", fence: fields["fence"] ?? "", worker: "w2")
            #expect(try await fixture.store.finish(lease, as: .complete, resultJSON: nil, stagesMs: []) == .done, "\(name)")
            return
        }
        #expect(standing.queued == 1 && standing.running == 0, "\(name)")
        let claim = try await fixture.claim()
        #expect(claim.lease.job == next, "\(name)")
        #expect(try await fixture.store.finish(claim.lease, as: .complete, resultJSON: nil, stagesMs: []) == .done, "\(name)")
    }

    /// The retry and the cancel cross: what the worker says again must not bring the job back.
    @Test func aFailureThatIsSaidAgainDoesNotUndoACancel() async throws {
        try await StoreFixture.with(settings: CancelStateTests.settings) { fixture in
            let store = fixture.store
            try await store.registerQueues(["gpu"])
            let job = try await CancelStateTests.submit(fixture, "a")
            let error = JobError(code: "x", message: "y", isRecoverable: true)
            let first = try await fixture.claim().lease
            // The retry comes first, and its answer is lost; the cancel ends the waiting job.
            #expect(try await store.fail(first, error: error, stagesMs: []) == .willRetry(attempt: 2, delayMs: 4999))
            #expect(try await store.cancel(job, by: "me", reason: nil) == .cancelled)
            // Said again: its fence is forgotten with the end, and nothing starts anew.
            #expect(try await store.fail(first, error: error, stagesMs: []) == .lost)
            #expect(try await fixture.snapshot(job).phase == .cancelled)
            guard case .empty(nil) = try await store.claim(queue: "gpu", worker: "w", nonce: "n") else {
                Issue.record("a cancelled job was given out, or is due")
                return
            }
            #expect(try await fixture.findings() == [])
        }
    }
}
