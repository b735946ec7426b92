import JobStore
import ProgressCore
import TestSupport
import Testing

/// Why a job is where it is: each cause is made, and must be named first.
@Suite(.timeLimit(.minutes(2))) struct WhyTests {
    private func codes(_ fixture: StoreFixture, _ job: JobID) async throws -> [String] {
        try #require(try await fixture.store.why(job)).reasons.map(\.code)
    }

    private func worker(_ id: String, jobs: [String] = [], places: Int = 1, isDraining: Bool = false) -> WorkerRecord {
        WorkerRecord(
            id: id,
            host: "h",
            pid: 1,
            version: "0",
            queues: ["other", "gpu"],
            pipeline: "relief",
            concurrency: places,
            jobs: jobs,
            isDraining: isDraining,
            startedAtMs: 0
        )
    }

    @Test func aWaitingJobIsToldWhatHoldsIt() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            #expect(try await store.why(fixture.job("absent")) == nil)
            let first = try await fixture.submit("first")
            let job = try await fixture.submit("job") { $0.owner = Owner("acme/ann") }
            #expect(try await codes(fixture, job) == ["no_worker", "in_line", "expires"])
            try await store.registerWorker(worker("w1", isDraining: true))
            #expect(try await codes(fixture, job) == ["workers_draining", "in_line", "expires"])
            try await store.registerWorker(worker("w2", places: 2))
            #expect(try await codes(fixture, job) == ["in_line", "workers_free", "expires"])
            try await store.registerWorker(worker("w2", jobs: ["a", "b"], places: 2))
            #expect(try await codes(fixture, job) == ["in_line", "workers_busy", "expires"])
            let reasons = try #require(try await store.why(job)).reasons
            #expect(reasons[0] == .inLine(queue: "gpu", ahead: 1, ready: 2))
            #expect(reasons[1] == .workersBusy(queue: "gpu", workers: 1, slots: 2))
            try await store.configure(queue: "gpu", [.paused(true), .draining(true)])
            #expect(try await codes(fixture, job) == ["queue_paused", "in_line", "workers_busy", "queue_draining", "expires"])
            try await store.configure(queue: "gpu", [.paused(false), .draining(false), .maxRunning(1)])
            #expect(try await fixture.claim().lease.job == first)
            #expect(try await codes(fixture, job) == ["queue_limit", "in_line", "workers_busy", "expires"])
            #expect(try #require(try await store.why(job)).reasons[0] == .queueLimit(queue: "gpu", running: 1, limit: 1))
        }
    }

    @Test func aTenantsLimitIsNamedWithHowManyOfItsOwnComeFirst() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            try await store.registerWorker(worker("w1", places: 8))
            try await store.configure(queue: "gpu", [.tenantMaxRunning(1)])
            for id in ["a", "b", "c", "d"] { _ = try await fixture.submit(id) { $0.owner = Owner("acme/ann") } }
            #expect(try await fixture.claim().lease.job == fixture.job("a"))
            _ = try await fixture.submit("e") { $0.owner = Owner("acme/ann") }
            // The claim that finds nothing to give parks what it passes.
            guard case .empty = try await store.claim(queue: "gpu", worker: "w1", nonce: "n") else {
                Issue.record("a second job of the tenant was given out")
                return
            }
            let why = try #require(try await store.why(try fixture.job("d")))
            #expect(why.reasons.first == .tenantLimit(tenant: "acme", running: 1, limit: 1, ahead: 2))
            #expect(why.reasons.first?.message == "the tenant acme runs 1 of at most 1 job here; 2 of its own come first")
            let other = try await fixture.submit("other") { $0.owner = Owner("zeta/zoe") }
            #expect(try await codes(fixture, other).first == "in_line")
        }
    }

    @Test func delaysAndRetriesTellWhenAndWhy() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            try await store.registerWorker(worker("w1"))
            let delayed = try await fixture.submit("delayed") { $0.delayMs = 3_600_000 }
            #expect(try await codes(fixture, delayed) == ["delayed", "workers_free", "expires"])
            let job = try await fixture.submit("job")
            let error = JobError(code: "out_of_memory", message: "the card has 8 GB, \"20\" were asked", isRecoverable: true)
            let claim = try await fixture.claim()
            _ = try await store.advance(claim.lease, write: 1, to: .generating(40))
            guard case .willRetry = try await store.fail(claim.lease, error: error, stagesMs: []) else {
                Issue.record("no retry")
                return
            }
            let why = try #require(try await store.why(job))
            guard case .retryDelayed(2, _, "out_of_memory", error.message) = why.reasons.first else {
                Issue.record("\(why.reasons)")
                return
            }
            #expect(why.attempt == 2 && why.maxAttempts == 3)
            #expect(why.failures.map(\.attempt) == [1] && why.failures.first?.message == error.message)
        }
    }

    @Test func aRunningJobShowsWorkerLeaseProgressAndCancel() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            let job = try await fixture.submit("job") { $0.maxRuntimeMs = 600_000 }
            let claim = try await fixture.claim(worker: "w1")
            #expect(try await codes(fixture, job) == ["worker_gone", "running", "runtime_limit"])
            try await store.registerWorker(worker("w1", jobs: ["job"]))
            _ = try await store.advance(
                claim.lease,
                write: 1,
                to: ProgressState(phase: .generating, phasePercent: 10, percent: 10, stage: "s", isStalled: true)
            )
            #expect(try await codes(fixture, job) == ["stalled", "running", "runtime_limit"])
            let why = try #require(try await store.why(job))
            guard case .running("w1", let since, 1...20_000, let age) = why.reasons[1] else {
                Issue.record("\(why.reasons)")
                return
            }
            #expect(since >= age && age >= 0)
            _ = try await store.cancel(job, by: "acme/ann", reason: "wrong, \"at\":1")
            guard case .cancelRequested("acme/ann", "wrong, \"at\":1", let asked) = try #require(try await store.why(job)).reasons.first
            else {
                Issue.record("no cancel")
                return
            }
            #expect((0...60_000).contains(asked))
            _ = try await store.finish(claim.lease, as: .cancelled, resultJSON: nil, stagesMs: [])
            guard case .cancelled(_, "acme/ann", "wrong, \"at\":1", false) = try #require(try await store.why(job)).reasons.first else {
                Issue.record("not cancelled")
                return
            }
        }
    }

    /// Age of the last progress, as the reasons tell it.
    private func progressAge(_ fixture: StoreFixture, _ job: JobID) async throws -> Int? {
        for case .running(_, _, _, let age) in try #require(try await fixture.store.why(job)).reasons { return age }
        for case .reporting(_, _, _, let age) in try #require(try await fixture.store.why(job)).reasons { return age }
        return nil
    }

    @Test func onlyWhatTheWorkSaysIsProgress() async throws {
        try await StoreFixture.with { fixture in
            let (store, hour) = (fixture.store, 3_600_000)
            let job = try await fixture.submit("job")
            let lease = try await fixture.claim().lease
            var state = ProgressState(phase: .generating, phasePercent: 10, percent: 10, stage: "s")
            func advance(_ write: Int, quietMs: Int) async throws -> Int {
                state.percent += 1
                _ = try await store.advance(lease, write: write, to: state, quietMs: quietMs)
                return try #require(try await progressAge(fixture, job))
            }
            #expect(try await advance(1, quietMs: 0) < hour / 2)
            // The bar goes on by the clock, the work has hung for an hour.
            #expect((hour..<2 * hour).contains(try await advance(2, quietMs: hour)))
            _ = try await store.cancel(job, by: "me", reason: nil)
            _ = try await store.heartbeat(lease)
            #expect((hour..<2 * hour).contains(try await progressAge(fixture, job) ?? 0))
            #expect(try await advance(3, quietMs: 0) < hour / 2)
            #expect(try await advance(4, quietMs: .max) > hour)
            // Another attempt has said nothing yet.
            #expect(try await store.release(lease) == .held)
            #expect(try await fixture.snapshot(job).fields["progress_at"] == nil)
        }
    }

    @Test func aJobThatHasSaidNothingIsAsQuietAsItsClaimIsOld() async throws {
        try await StoreFixture.with { fixture in
            let job = try await fixture.submit("job")
            let lease = try await fixture.claim().lease
            _ = try await fixture.server.cli("HINCRBY", "headway:{0}:job:job", "claimed_at", "-3600000")
            #expect((3_600_000..<7_200_000).contains(try await progressAge(fixture, job) ?? 0))
            _ = try await fixture.store.finish(lease, as: .complete, resultJSON: nil, stagesMs: [])
        }
    }

    @Test func aProducerThatRepeatsItselfMakesNoProgress() async throws {
        try await StoreFixture.with { fixture in
            let (store, hour) = (fixture.store, 3_600_000)
            let opening = ProducerSubmission(
                id: try fixture.job("t"),
                pipeline: "training",
                owner: .anonymous,
                nonce: "n",
                producer: "trainer"
            )
            let lease = try await store.open(opening).lease
            var report = ProgressReport()
            (report.phase, report.percent, report.step, report.steps, report.message) = (.generating, 40, 4, 10, "loss 0.3")
            func tell() async throws -> Int {
                _ = try await store.report(lease, write: nil, report)
                return try #require(try await progressAge(fixture, lease.job))
            }
            #expect(try await tell() < hour / 2)
            _ = try await fixture.server.cli("HINCRBY", "headway:{0}:job:t", "progress_at", "-\(hour)")
            report.etaMs = 1000
            #expect(try await tell() >= hour)
            report.percent = 41
            #expect(try await tell() < hour / 2)
            report.quietMs = hour
            report.percent = 42
            #expect(try await tell() >= hour)
            (report.quietMs, report.message) = (nil, "loss 0.2")
            #expect(try await tell() < hour / 2)
        }
    }

    @Test func anExpiredLeaseAndAForcedEndAreTold() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let store = fixture.store
            let job = try await fixture.submit("job") { $0.maxAttempts = 1 }
            _ = try await fixture.claim(worker: "w1")
            try await eventually(within: .seconds(20), "the lease runs out") { try await codes(fixture, job).first == "lease_expired" }
            try await fixture.reap(until: job, "worker lost") { $0.phase == .failed }
            let why = try #require(try await store.why(job))
            guard case .failed(_, "worker_lost", _) = why.reasons.first else {
                Issue.record("\(why.reasons)")
                return
            }
            #expect(why.failures.map(\.attempt) == [1] && why.failures.map(\.code) == ["worker_lost"])
            _ = try await store.retry(job, successor: fixture.job("again"))
            #expect(try await codes(fixture, job) == ["failed", "retried_as"])
        }
    }

    @Test func producersAndGroupsAreToldApart() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            let held = try fixture.job("held")
            let lease = try await store.open(
                ProducerSubmission(id: held, pipeline: "relief", owner: .anonymous, nonce: "n", producer: "celery@gpu7")
            ).lease
            guard case .reporting("celery@gpu7", _, 1..., _) = try #require(try await store.why(held)).reasons.first else {
                Issue.record("no producer")
                return
            }
            _ = try await store.finish(lease, as: .complete, resultJSON: nil, stagesMs: [])
            #expect(try await codes(fixture, held) == ["complete"])

            let group = try await fixture.submit("group") { $0.children = 3 }
            for _ in 0..<2 { _ = try await fixture.submit("ignored") { $0.childOf = group } }
            let claim = try await fixture.claim()
            _ = try await store.finish(claim.lease, as: .complete, resultJSON: nil, stagesMs: [])
            let why = try #require(try await store.why(group))
            guard case .group(let counts, let open, false) = why.reasons.first else {
                Issue.record("\(why.reasons)")
                return
            }
            #expect(counts.expected == 3 && counts.made == 2 && counts.complete == 1 && counts.waiting == 1)
            #expect(open.map(\.job.text) == ["group~2"] && open.map(\.phase) == [.queued] && why.queue == nil)
        }
    }

    @Test func theJSONIsAsDocumented() async throws {
        try await StoreFixture.with { fixture in
            let job = try await fixture.submit("job") { $0.owner = Owner("a\"b/c") }
            let json = try #require(try await fixture.store.why(job)).json
            #expect(json.hasPrefix("{\"job\":\"job\",\"phase\":\"QUEUED\",\"queue\":\"gpu\",\"attempt\":1,\"max_attempts\":3,\"at\":1"))
            #expect(
                json.contains(
                    "\"reasons\":[{\"code\":\"no_worker\",\"message\":\"no worker is alive that serves the queue gpu\",\"queue\":\"gpu\"},"
                        + "{\"code\":\"in_line\",\"message\":\"it is the next in the queue gpu\",\"queue\":\"gpu\",\"queue_position\":0,"
                        + "\"queue_ahead\":0,\"ready\":1},"
                )
            )
            #expect(json.hasSuffix("],\"failures\":[]}"))
        }
    }
}
