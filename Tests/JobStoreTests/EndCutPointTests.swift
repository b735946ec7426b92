import JobStore
import NIOPosix
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// A worker that dies around the end of a job or before it begins one, between any two of the commands that workers send there: every
/// job ends once, another worker does what is left, and the books are right.
@Suite(.timeLimit(.minutes(5))) struct EndCutPointTests {
    private typealias Step = @Sendable (StoreFixture, _ first: Lease, _ second: Lease) async throws -> Void

    private static let request = ClaimRequest(queue: "gpu", worker: "victim", nonce: "")
    private static let error = JobError(code: "generator_failed", message: "x", isRecoverable: true)

    // MARK: The next job, which comes along with an end

    /// What the victim still sends after its first job has ended and its second has come along.
    private static let afterTheEnd: [Step] = [
        // The reply did not come, so the end is sent again, and that reply is lost too.
        { fixture, first, second in
            let (status, next) = try await finishWithNext(fixture.store, first)
            #expect(status == .done)
            guard case .job(let claim)? = next else {
                Issue.record("a repetition must bring the same job")
                return
            }
            #expect(claim.lease == second)
        },
        { fixture, first, _ in _ = try await fixture.store.learn(lesson, pipeline: "relief", lease: first, traceJSON: "{}") },
        { fixture, _, second in _ = try await fixture.store.advance(second, write: 1, to: .generating(30)) },
    ]

    private static var lesson: LearningRecord {
        var record = LearningRecord(worker: "victim")
        record.additions = [.init(field: "r|shape_generation", decay: 0.975, terms: .values([1, 2]))]
        return record
    }

    private static func finishWithNext(_ store: JobStore, _ lease: Lease) async throws -> (status: FinishStatus, next: ClaimOutcome?) {
        try await store.finish(lease, as: .complete, resultJSON: "{}", stagesMs: [], then: request)
    }

    /// With a limit the end and the claim are written one after the other, without one together.
    @Test(arguments: 0...afterTheEnd.count, [false, true])
    func whatCameAlongWithAnEndIsRunByAnother(cut: Int, hasLimit: Bool) async throws {
        try await Self.with { fixture in
            if hasLimit { try await fixture.store.configure(queue: "gpu", [.tenantMaxRunning(5)]) }
            for id in ["a", "b", "c"] { _ = try await fixture.submit(id) }
            let first = try await fixture.claim(worker: "victim").lease
            guard case .job(let along)? = try await Self.finishWithNext(fixture.store, first).next else {
                Issue.record("no job came along")
                return
            }
            for step in Self.afterTheEnd.prefix(cut) { try await step(fixture, first, along.lease) }
            // Here it dies, with b in its hands.
            try await fixture.reap(until: along.lease.job, "attempt 2") { $0.fields["attempt"] == "2" }
            // Its end sent once more, after a freeze: nobody may hear the answer, so it takes nothing.
            try await Self.expectNothingComesAlong(fixture, first)
            try await Self.workOff(fixture)
            // And all of it once more, when others have its job.
            try await Self.expectNoChange(fixture, ["a", "b", "c"]) {
                try await Self.expectNothingComesAlong(fixture, first)
                #expect(try await fixture.store.advance(along.lease, write: 9, to: .generating(99)) == .lost)
                #expect(try await fixture.store.heartbeat(along.lease) == .lost)
                let (status, next) = try await Self.finishWithNext(fixture.store, along.lease)
                #expect(status == .lost && next == nil)
            }
            try await Self.expectBooks(fixture, ["a": .complete, "b": .complete, "c": .complete])
            let attempts = try await Self.fields("attempt", of: ["a", "b", "c"], fixture)
            #expect(attempts == ["1", "2", "1"])
            // A lesson that was not sent is all that is lost.
            #expect(try await fixture.store.statistics(pipeline: "relief").jobs == (cut >= 2 ? 1 : 0))
        }
    }

    /// The end arrives and its reply does not, by a real connection that is cut; then the worker is gone.
    @Test func anEndWhoseReplyIsLostLeavesNoJobWithNobody() async throws {
        try await Self.with { fixture in
            for id in ["before", "a", "b"] { _ = try await fixture.submit(id) }
            let jobs = [try fixture.job("a"), try fixture.job("b")]
            let proxy = try await TCPProxy.start(to: fixture.server.port)
            let group = MultiThreadedEventLoopGroup.singleton
            var configuration = try RedisConfiguration(url: "redis://127.0.0.1:\(proxy.port)")
            configuration.poolSize = 1
            let redis = RedisClient(configuration: configuration, eventLoopGroup: group, logger: .quiet)
            let running = Task { try await redis.run() }  // ended below
            defer { running.cancel() }
            let victim = JobStore(redis: redis, keys: Keys(), settings: fixture.store.settings)
            // A job before it, so that Redis knows the script and answers nothing but the end.
            guard case .job(let before) = try await victim.claim(queue: "gpu", worker: "victim", nonce: "n"),
                case .job(let claim)? = try await Self.finishWithNext(victim, before.lease).next
            else {
                Issue.record("nothing to claim")
                return
            }
            proxy.set(.deaf)
            async let end = storeError { try await Self.finishWithNext(victim, claim.lease) }
            try await eventually("the end has arrived") { try await fixture.snapshot(jobs[0]).phase == .complete }
            proxy.set(.cut)
            let error = await end
            #expect(error?.mayHaveRun == true)
            // Nobody knows of it but Redis.
            #expect(try await fixture.snapshot(jobs[1]).fields["worker"] == "victim")
            try await fixture.reap(until: jobs[1], "attempt 2") { $0.fields["attempt"] == "2" }
            try await Self.workOff(fixture)
            try await Self.expectBooks(fixture, ["before": .complete, "a": .complete, "b": .complete])
        }
    }

    // MARK: Other ends

    /// Failed: the next attempt comes after its back-off, without waiting for a lease that nobody holds; the last one is for good.
    @Test(arguments: 0...2, [1, 3])
    func aWorkerThatDiesAroundAFailureCostsNoSecondAttempt(cut: Int, maxAttempts: Int) async throws {
        try await Self.with { fixture in
            let job = try await fixture.submit("a") { $0.maxAttempts = maxAttempts }
            let lease = try await fixture.claim(worker: "victim").lease
            _ = try await fixture.store.advance(lease, write: 1, to: .generating(30))
            let expected: FailStatus = maxAttempts == 1 ? .dead : .willRetry(attempt: 2, delayMs: 1)
            for _ in 0..<cut { #expect(try await fixture.store.fail(lease, error: Self.error, stagesMs: []) == expected) }
            if cut == 0 {
                try await fixture.reap(until: job, "the lost worker is noticed") { $0.fields["attempt"] == "2" || $0.phase.isTerminal }
            }
            try await Self.workOff(fixture)
            try await Self.expectNoChange(fixture, ["a"]) {
                _ = try await fixture.store.fail(lease, error: Self.error, stagesMs: [])
                #expect(try await fixture.store.heartbeat(lease) == .lost)
            }
            try await Self.expectBooks(fixture, ["a": maxAttempts == 1 ? .failed : .complete])
            let snapshot = try await fixture.snapshot(job)
            #expect(snapshot.fields["attempt"] == (maxAttempts == 1 ? "1" : "2"))
            let queued = try await fixture.store.milestones(job, after: 0).count { $0.phase == .queued }
            #expect(queued == (maxAttempts == 1 ? 1 : 2))
            if maxAttempts == 1 {
                #expect(snapshot.fields["error"]?.contains(cut == 0 ? "worker_lost" : "generator_failed") == true)
            }
            let dead = try await fixture.redis.send(["ZCARD", "headway:{0}:queue:gpu:dead"]).int
            #expect(dead == (maxAttempts == 1 ? 1 : 0))
        }
    }

    /// Handed back: the job is there for others at once, and costs none of its attempts.
    @Test(arguments: 0...2, [false, true])
    func aWorkerThatDiesAroundHandingBackLosesNothing(cut: Int, hasShown: Bool) async throws {
        try await Self.with { fixture in
            let job = try await fixture.submit("a")
            let lease = try await fixture.claim(worker: "victim").lease
            if hasShown { _ = try await fixture.store.advance(lease, write: 1, to: .generating(30)) }
            for _ in 0..<cut { #expect(try await fixture.store.release(lease) == .held) }
            if cut == 0 { try await fixture.reap(until: job, "attempt 2") { $0.fields["attempt"] == "2" } }
            try await Self.workOff(fixture)
            // Whatever it is told: it changes nothing.
            try await Self.expectNoChange(fixture, ["a"]) { _ = try await fixture.store.release(lease) }
            try await Self.expectBooks(fixture, ["a": .complete])
            let snapshot = try await fixture.snapshot(job)
            #expect(snapshot.fields["worker"] == "heir")
            #expect(snapshot.fields["attempt"] == (cut == 0 || hasShown ? "2" : "1"))
            #expect(snapshot.fields["max_attempts"] == (cut > 0 && hasShown ? "4" : "3"))
        }
    }

    /// The commands of a worker whose job is cancelled, in order: it hears of it, and acknowledges, twice when the reply is lost.
    private static let acknowledgement: [@Sendable (StoreFixture, Lease) async throws -> Void] = [
        { fixture, lease in
            guard case .cancelRequested = try await fixture.store.heartbeat(lease) else {
                Issue.record("the cancel is not told")
                return
            }
        },
        acknowledge, acknowledge,
    ]

    private static func acknowledge(_ fixture: StoreFixture, _ lease: Lease) async throws {
        #expect(try await fixture.store.finish(lease, as: .cancelled, resultJSON: nil, stagesMs: []) == .done)
    }

    /// By the end of its time to acknowledge, or before that by the end of its lease.
    @Test(arguments: 0...acknowledgement.count, [Duration.milliseconds(50), .seconds(600)])
    func aCancelTakesEffectWhereverItsWorkerDies(cut: Int, grace: Duration) async throws {
        try await Self.with(cancelGrace: grace) { fixture in
            let job = try await fixture.submit("a")
            let lease = try await fixture.claim(worker: "victim").lease
            _ = try await fixture.store.advance(lease, write: 1, to: .generating(30))
            #expect(try await fixture.store.cancel(job, by: "me", reason: "enough") == .requested(first: true))
            for step in Self.acknowledgement.prefix(cut) { try await step(fixture, lease) }
            try await fixture.reap(until: job, "the cancel takes effect") { $0.phase == .cancelled }
            try await Self.workOff(fixture)
            try await Self.expectNoChange(fixture, ["a"]) {
                for verb in [FinishOutcome.complete, .cancelled] {
                    _ = try await fixture.store.finish(lease, as: verb, resultJSON: "{}", stagesMs: [])
                }
                _ = try await fixture.store.fail(lease, error: Self.error, stagesMs: [])
            }
            try await Self.expectBooks(fixture, ["a": .cancelled])
            let end = try await fixture.snapshot(job)
            #expect(end.body.contains("enough") && end.fields["attempt"] == "1")
        }
    }

    // MARK: Before a job

    /// The token that wakes one worker goes with the worker that took it; the next sweep wakes another.
    @Test(arguments: [0, 1])
    func aTokenThatDiesWithItsWorkerIsReplaced(afterTheClaim cut: Int) async throws {
        try await Self.with { fixture in
            func wait() async throws { try await fixture.store.waitForWork(queues: ["gpu"], atMost: .seconds(100)) }
            async let victim: Void = wait()
            try await Self.isBlocked(fixture, 1)
            async let heir: Void = wait()
            try await Self.isBlocked(fixture, 2)
            let job = try await fixture.submit("a")
            // Redis serves who has waited longest.
            try await victim
            try await Self.isBlocked(fixture, 1)
            #expect(try await fixture.redis.send(["LLEN", "headway:{wake}:gpu"]).int == 0)
            if cut == 1 {
                _ = try await fixture.claim(worker: "victim")
                try await fixture.reap(until: job, "attempt 2") { $0.fields["attempt"] == "2" }
            } else {
                _ = try await fixture.store.reap(queue: "gpu")
            }
            // Woken, and not at the end of its patience.
            try await Self.isBlocked(fixture, 0)
            try await heir
            try await Self.workOff(fixture)
            try await Self.expectBooks(fixture, ["a": .complete])
            #expect(try await Self.fields("attempt", of: ["a"], fixture) == ["\(cut + 1)"])
        }
    }
}

// MARK: What all of them do

extension EndCutPointTests {
    private static func with(cancelGrace: Duration = .seconds(10), _ body: (StoreFixture) async throws -> Void) async throws {
        var settings = StoreFixture.quickSettings
        settings.cancelGrace = cancelGrace
        // Of a failed job's back-off only one millisecond is left.
        settings.random = { 0 }
        try await StoreFixture.with(settings: settings) { fixture in
            try await fixture.store.registerQueues(["gpu"])
            try await body(fixture)
        }
    }

    /// What a worker of today does until nothing is left: each job comes along with the end of the last.
    private static func workOff(_ fixture: StoreFixture) async throws {
        let request = ClaimRequest(queue: "gpu", worker: "heir", nonce: "")
        func hasWork() async throws -> Bool {
            for place in ["ready", "delayed", "leases"] {
                if try await fixture.redis.send(["ZCARD", .string("headway:{0}:queue:gpu:\(place)")]).int != 0 { return true }
            }
            return false
        }
        try await eventually(within: .seconds(5), "nothing is left") {
            var next = try await fixture.store.claim(queue: "gpu", worker: "heir", nonce: "\(UInt64.random(in: 0...UInt64.max))")
            while case .job(let claim) = next {
                _ = try await fixture.store.advance(claim.lease, write: 1, to: .generating(50))
                let (status, along) = try await fixture.store.finish(
                    claim.lease,
                    as: .complete,
                    resultJSON: "{}",
                    stagesMs: [],
                    then: request
                )
                #expect(status == .done)
                next = along ?? .empty(nextDueMs: nil)
            }
            return try await !hasWork()
        }
    }

    private static func expectNothingComesAlong(_ fixture: StoreFixture, _ lease: Lease) async throws {
        let (status, next) = try await finishWithNext(fixture.store, lease)
        guard status == .done, case .empty? = next else {
            Issue.record("\(status), and with it \(String(describing: next))")
            return
        }
    }

    /// The stale owner of a job says something: nobody hears of it.
    private static func expectNoChange(_ fixture: StoreFixture, _ ids: [String], _ body: () async throws -> Void) async throws {
        func state() async throws -> [[String: String]] {
            var all: [[String: String]] = []
            for id in ids { all.append(try await fixture.snapshot(fixture.job(id)).fields) }
            return all
        }
        let before = try await state()
        try await body()
        #expect(try await state() == before)
    }

    private static func fields(_ name: String, of ids: [String], _ fixture: StoreFixture) async throws -> [String?] {
        var values: [String?] = []
        for id in ids { values.append(try await fixture.snapshot(fixture.job(id)).fields[name]) }
        return values
    }

    private static func isBlocked(_ fixture: StoreFixture, _ count: Int) async throws {
        try await eventually("\(count) blocked clients") {
            try await fixture.server.cli("INFO", "clients").contains("blocked_clients:\(count)")
        }
    }

    /// Every job has ended once, in its hash, its milestones, the stream of ends and the counters; and stands nowhere any more.
    private static func expectBooks(_ fixture: StoreFixture, _ ends: [String: Phase]) async throws {
        for (id, phase) in ends {
            let snapshot = try await fixture.snapshot(fixture.job(id))
            #expect(snapshot.phase == phase && snapshot.fields["fence"] == nil, "\(id)")
            let milestones = try await fixture.store.milestones(fixture.job(id), after: 0)
            #expect(milestones.count(where: \.phase.isTerminal) == 1 && milestones.last?.phase == phase, "\(id)")
            #expect(milestones.last?.seq == snapshot.seq, "\(id)")
        }
        for place in ["ready", "delayed", "leases", "deadlines"] {
            #expect(
                try await fixture.redis.send(["ZCARD", .string("headway:{0}:queue:gpu:\(place)")]).int == 0,
                "\(place) holds a leftover"
            )
        }
        let meta = try await numbers(fixture, "meta", ["submitted", "complete", "failed", "cancelled"])
        let phases: [Phase] = [.complete, .failed, .cancelled]
        #expect(meta == [ends.count] + phases.map { phase in ends.values.count { $0 == phase } })
        let tenant = "tenant:\(Owner.anonymous.tenant)"
        #expect(try await numbers(fixture, tenant, ["queued", "running"]) == [0, 0])
        let entries = try await fixture.redis.send(["XRANGE", "headway:{0}:ended", "-", "+"]).array ?? []
        let jobs = entries.compactMap { $0.array?[1].array?[1].string }
        #expect(jobs.sorted() == ends.keys.sorted())
        let audit = try await fixture.store.audit(AuditOptions(fix: false))
        #expect(audit.isClean && audit.jobs == ends.count, "\(audit.findings.map(\.message))")
    }

    private static func numbers(_ fixture: StoreFixture, _ part: String, _ names: [String]) async throws -> [Int] {
        let reply = try await fixture.redis.send(["HMGET", .string("headway:{0}:queue:gpu:\(part)")] + names.map { .string($0) })
        return (reply.array ?? []).map { Int($0.string ?? "0") ?? -1 }
    }
}
