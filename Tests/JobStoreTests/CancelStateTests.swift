import JobStore
import NIOCore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// A cancel of a job in every state there is, each reached by the verbs that lead there.
@Suite(.timeLimit(.minutes(5))) struct CancelStateTests {
    /// Not the default, so that a TTL that is somebody else's is seen.
    static let ttlMs = 1_234_567
    static let reason = "no \"need\" of a/b"

    /// Nothing is over by itself while a test looks; leases and back-offs end when the test says so.
    static var settings: StoreSettings {
        var settings = StoreSettings()
        settings.lease = .seconds(60)
        settings.cancelGrace = .seconds(30)
        settings.reapInterval = .zero
        // The longest back-off there is.
        settings.random = { 999_999 }
        return settings
    }

    static func submit(_ fixture: StoreFixture, _ id: String, change: (inout JobSubmission) -> Void = { _ in }) async throws -> JobID {
        try await fixture.submit(id) {
            $0.owner = Owner("acme/u")
            $0.ttlMs = Self.ttlMs
            change(&$0)
        }
    }

    static func child(_ fixture: StoreFixture, of group: JobID) async throws -> JobID {
        var submission = JobSubmission(id: group, queue: "gpu", pipeline: "relief", owner: Owner("acme/u"), paramsJSON: "{}")
        submission.childOf = group
        submission.ttlMs = ttlMs
        return try await fixture.store.submit(submission).head.job
    }

    /// What the hash and the events say of a cancel that Redis took between two moments.
    static func expectRequest(_ cancel: String?, between earliest: Int, and latest: Int, isForced: Bool = false, _ name: String) throws {
        let cancel = try #require(cancel, "\(name): nobody asked")
        let at = try #require(cancel.firstMatch(of: #/"at":(\d+)/#).flatMap { Int($0.1) }, "\(name): \(cancel)")
        #expect((earliest...latest).contains(at), "\(name): \(cancel)")
        let forced = isForced ? ",\"forced\":true" : ""
        #expect(cancel == "{\"by\":\"me\",\"reason\":\"no \\\"need\\\" of a/b\",\"at\":\(at)\(forced)}", "\(name)")
    }

    /// The keys of an ended job live for its own TTL, from its end on.
    static func expectOwnTTL(_ fixture: StoreFixture, _ job: JobID, _ name: String) async throws {
        let ttls = try await fixture.ttls(job)
        #expect(ttls["job"] != nil && ttls["milestones"] != nil, "\(name): \(ttls)")
        for (kind, ttl) in ttls { #expect((ttlMs - 60_000...ttlMs).contains(ttl), "\(name): \(kind) lives \(ttl) ms") }
    }

    // MARK: Waiting

    enum Waiting: String, CaseIterable, Sendable {
        case ready, delayed, parked, inBackOff, afterALostLease, handedBack, handedBackWithProgress, childOfAGroup

        func make(_ fixture: StoreFixture) async throws -> JobID {
            let store = fixture.store
            switch self {
            case .ready: return try await submit(fixture, "a")
            case .delayed: return try await submit(fixture, "a") { $0.delayMs = 60_000 }
            case .parked:
                try await store.configure(queue: "gpu", [.tenantMaxRunning(1)])
                _ = try await submit(fixture, "first")
                _ = try await fixture.claim()
                return try await submit(fixture, "a")
            case .childOfAGroup:
                let group = try await submit(fixture, "a") { $0.children = 2 }
                _ = try await child(fixture, of: group)
                return try await child(fixture, of: group)
            case .inBackOff, .afterALostLease, .handedBack, .handedBackWithProgress: break
            }
            let job = try await submit(fixture, "a")
            let lease = try await fixture.claim().lease
            if self != .handedBack {
                _ = try await store.advance(lease, write: 1, to: .generating(30))
                _ = try await store.appendLog(lease, write: 1, [LogLine(stream: "stderr", text: "x")], droppedBefore: 0)
            }
            switch self {
            case .inBackOff:
                let error = JobError(code: "x", message: "y", isRecoverable: true)
                #expect(try await store.fail(lease, error: error, stagesMs: []) == .willRetry(attempt: 2, delayMs: 4999))
            case .afterALostLease:
                try await fixture.loseLease(lease)
                #expect(try await store.reap(queue: "gpu").requeued == 1)
            default: #expect(try await store.release(lease) == .held)
            }
            return job
        }

        /// Where it stands: this and `deadlines`.
        var place: String {
            switch self {
            case .delayed, .inBackOff: "delayed"
            case .parked: "parked:acme"
            default: "ready"
            }
        }

        /// The name of the job of which the events are heard.
        var job: String { self == .childOfAGroup ? "a~2" : "a" }
    }

    @Test(arguments: Waiting.allCases) func aJobThatWaitsEndsAtOnce(state: Waiting) async throws {
        try await StoreFixture.with(settings: Self.settings) { fixture in
            try await fixture.store.registerQueues(["gpu"])
            let job = try fixture.job(state.job)
            try await EventRecorder.listening(fixture, to: [job]) { recorder in
                #expect(try await state.make(fixture) == job)
                let before = try await JobStanding.of(job, fixture)
                #expect(Set(before.places.keys) == [state.place, "deadlines"], "\(before.places)")
                let earliest = try await fixture.now()
                #expect(try await fixture.store.cancel(job, by: "me", reason: Self.reason) == .cancelled)
                let latest = try await fixture.now()

                let after = try await JobStanding.of(job, fixture)
                #expect(after.fields["phase"] == "CANCELLED")
                try Self.expectRequest(after.fields["cancel"], between: earliest, and: latest, state.rawValue)
                #expect(after.fields["seq"] == "\((Int(before.fields["seq"] ?? "") ?? 0) + 1)")
                #expect(after.places == [:] && after.ends == ["CANCELLED"] && after.cancelled == before.cancelled + 1)
                #expect(after.queued == before.queued - 1 && after.running == before.running)
                #expect(after.parked == before.parked - (state == .parked ? 1 : 0))
                for name in ["fence", "score", "passed", "write_no", "result"] { #expect(after.fields[name] == nil, "\(name)") }
                let touched: Set = ["phase", "cancel", "seq", "body", "updated_at", "finished_at", "score", "last_fence", "last_outcome"]
                func kept(_ standing: JobStanding) -> [String: String] { standing.fields.filter { !touched.contains($0.key) } }
                #expect(kept(after) == kept(before))
                try await Self.expectOwnTTL(fixture, job, state.rawValue)

                let body = try #require(after.fields["body"])
                #expect(body.contains("\"type\":\"cancelled\",\"phase\":\"CANCELLED\"") && body.contains("\"duration_ms\":"))
                #expect(body.contains("\"cancel\":\(after.fields["cancel"] ?? "?")"))
                #expect(after.milestones == before.milestones + [body])
                let events = try await recorder.events(job, upTo: Int(after.fields["seq"] ?? "") ?? 0)
                expectTruthful(events, try await fixture.snapshot(job), state.rawValue)
                #expect(events.last.map { $0.kind == .terminal && $0.hasCancel && $0.body == body } == true)
                #expect(try await fixture.findings() == [])

                // Whoever comes later changes nothing.
                #expect(try await fixture.store.cancel(job, by: "you", reason: nil) == .alreadyEnded(.cancelled))
                _ = try await fixture.store.reap(queue: "gpu")
                #expect(try await JobStanding.of(job, fixture) == after)
            }
        }
    }

    // MARK: Running

    enum Running: String, CaseIterable, Sendable {
        case justClaimed, withProgress, inASecondAttempt, childOfAGroup, progressOnly

        func make(_ fixture: StoreFixture, _ id: String = "a") async throws -> Lease {
            let store = fixture.store
            switch self {
            case .justClaimed, .withProgress, .inASecondAttempt: _ = try await submit(fixture, id)
            case .childOfAGroup: _ = try await child(fixture, of: submit(fixture, id) { $0.children = 1 })
            case .progressOnly:
                var job = ProducerSubmission(
                    id: try fixture.job(id),
                    pipeline: "p",
                    owner: Owner("acme/u"),
                    nonce: id,
                    producer: "w1"
                )
                job.ttlMs = CancelStateTests.ttlMs
                return try await store.open(job).lease
            }
            var lease = try await fixture.claim().lease
            if self == .inASecondAttempt {
                _ = try await store.advance(lease, write: 1, to: .generating(70))
                try await fixture.loseLease(lease)
                _ = try await store.reap(queue: "gpu")
                lease = try await fixture.claim().lease
            }
            if self != .justClaimed {
                _ = try await store.advance(lease, write: 1, to: .generating(30))
                _ = try await store.appendLog(lease, write: 1, [LogLine(stream: "stderr", text: "x")], droppedBefore: 0)
            }
            return lease
        }

        func job(_ id: String) -> String { self == .childOfAGroup ? "\(id)~1" : id }
    }

    @Test(arguments: Running.allCases) func theWorkerOfAJobThatRunsIsAsked(state: Running) async throws {
        try await StoreFixture.with(settings: Self.settings) { fixture in
            let (store, job, hints) = (fixture.store, try fixture.job(state.job("a")), "headway:hints:w1")
            try await store.registerQueues(["gpu"])
            try await EventRecorder.listening(fixture, to: [job], and: [hints]) { recorder in
                let lease = try await state.make(fixture)
                #expect(lease.job == job)
                let before = try await JobStanding.of(job, fixture)
                let earliest = try await fixture.now()
                #expect(try await store.cancel(job, by: "me", reason: Self.reason) == .requested(first: true))
                let latest = try await fixture.now()

                let after = try await JobStanding.of(job, fixture)
                try Self.expectRequest(after.fields["cancel"], between: earliest, and: latest, state.rawValue)
                var expected = before
                expected.fields.merge(after.fields.filter { ["cancel", "body", "updated_at"].contains($0.key) }) { $1 }
                expected.fields["seq"] = "\((Int(before.fields["seq"] ?? "") ?? 0) + 1)"
                // Whatever was to be looked at: when the grace is over its end is forced.
                expected.places["deadlines"] = after.places["deadlines"]
                #expect((earliest + 30_000...latest + 30_000).contains(Int(after.places["deadlines"] ?? 0)))
                #expect(after == expected)
                let events = try await recorder.events(job, upTo: Int(after.fields["seq"] ?? "") ?? 0)
                #expect(events.map(\.seq) == Array(1...events.count))
                #expect(events.last.map { $0.kind == .state && $0.hasCancel && $0.body == after.fields["body"] } == true)

                // Asked again: the worker is told once more, and the first one stays who asked.
                #expect(try await store.cancel(job, by: "you", reason: nil) == .requested(first: false))
                #expect(try await JobStanding.of(job, fixture) == after)
                let told = LeaseStatus.cancelRequested(CancelRequest(by: "me", reason: Self.reason))
                #expect(try await store.heartbeat(lease) == told)
                if state != .progressOnly {
                    try await eventually("two hints") { recorder.others.count >= 2 }
                }
                #expect(recorder.others == Array(repeating: [hints, job.text], count: state == .progressOnly ? 0 : 2))
                #expect(try await fixture.findings() == [])
            }
        }
    }

    // MARK: Groups

    @Test(arguments: [(0, 0), (2, 0), (3, 1), (2, 2), (1, 0)])
    func aGroupHandsItOnToEachChild(made: Int, running: Int) async throws {
        try await StoreFixture.with(settings: Self.settings) { fixture in
            let (store, name) = (fixture.store, "\(running) of \(made) run")
            try await store.registerQueues(["gpu"])
            let jobs = ["g"] + (1...3).map { "g~\($0)" }.prefix(made)
            let ids = try jobs.map { try fixture.job($0) }
            try await EventRecorder.listening(fixture, to: ids) { recorder in
                _ = try await Self.submit(fixture, "g") { $0.children = 3 }
                for _ in 0..<made { _ = try await Self.child(fixture, of: ids[0]) }
                var leases: [Lease] = []
                for _ in 0..<running { leases.append(try await fixture.claim().lease) }
                let earliest = try await fixture.now()
                let outcome = try await store.cancel(ids[0], by: "me", reason: Self.reason)
                let latest = try await fixture.now()
                #expect(outcome == (running > 0 ? .requested(first: true) : .cancelled))
                for (number, job) in ids.enumerated().dropFirst() {
                    let phase: Phase = number <= running ? .queued : .cancelled
                    #expect(try await fixture.snapshot(job).phase == phase, "\(name): \(job)")
                }
                #expect(try await fixture.findings() == [])
                if running > 0 {
                    #expect(try await store.cancel(ids[0], by: "you", reason: nil) == .requested(first: false))
                    for lease in leases {
                        #expect(!(try await fixture.snapshot(ids[0]).phase.isTerminal))
                        #expect(try await store.finish(lease, as: .cancelled, resultJSON: nil, stagesMs: []) == .done)
                    }
                }
                for job in ids {
                    let end = try await JobStanding.of(job, fixture)
                    #expect(end.places == [:] && end.ends == ["CANCELLED"] && end.queued == 0 && end.running == 0, "\(name): \(job)")
                    try Self.expectRequest(end.fields["cancel"], between: earliest, and: latest, "\(name): \(job)")
                    try await Self.expectOwnTTL(fixture, job, "\(name): \(job)")
                    let snapshot = try await fixture.snapshot(job)
                    expectTruthful(try await recorder.events(job, upTo: snapshot.seq), snapshot, "\(name): \(job)")
                }
                let counts = "{\"expected\":\(made),\"waiting\":0,\"running\":0,\"complete\":0,\"failed\":0,\"cancelled\":\(made)}"
                #expect(try await fixture.snapshot(ids[0]).fields["children"] == counts)
                #expect(try await store.cancel(ids[0], by: "you", reason: nil) == .alreadyEnded(.cancelled))
                #expect(try await fixture.findings() == [])
            }
        }
    }

    // MARK: Ended and absent

    @Test(arguments: [Phase.complete, .failed, .cancelled])
    func aJobThatHasEndedStaysAsItIsHoweverLarge(phase: Phase) async throws {
        try await StoreFixture.with(settings: Self.settings) { fixture in
            let store = fixture.store
            func json(_ bytes: Int) -> String { "{\"x\":\"\(String(repeating: "x", count: bytes - 8))\"}" }
            let params = json(StoreLimits.paramsBytes)
            let job = try fixture.job("a")
            try await EventRecorder.listening(fixture, to: [job], and: ["headway:hints:w1"]) { recorder in
                _ = try await Self.submit(fixture, "a") { $0.paramsJSON = params }
                let lease = try await fixture.claim().lease
                _ = try await store.advance(lease, write: 1, to: .generating(30))
                switch phase {
                case .complete:
                    _ = try await store.finish(lease, as: .complete, resultJSON: json(StoreLimits.resultBytes), stagesMs: [])
                case .failed:
                    let error = JobError(code: "x", message: "y", isRecoverable: false)
                    _ = try await store.fail(lease, error: error, stagesMs: [])
                default: _ = try await store.finish(lease, as: .cancelled, resultJSON: nil, stagesMs: [])
                }
                let before = try await everything(fixture)
                let ttls = try await fixture.ttls(job)
                for _ in 0..<3 {
                    #expect(try await store.cancel(job, by: "me", reason: Self.reason) == .alreadyEnded(phase))
                }
                #expect(try await everything(fixture) == before)
                for (kind, ttl) in try await fixture.ttls(job) {
                    #expect((ttls[kind] ?? 0) - 60_000...(ttls[kind] ?? 0) ~= ttl, "\(kind) lives \(ttl) ms")
                }
                // An event of a job that follows: nothing came before it.
                let seq = try await fixture.snapshot(job).seq
                _ = try await fixture.redis.send(["PUBLISH", "headway:hints:w1", "over"])
                try await eventually("the last word") { !recorder.others.isEmpty }
                #expect(recorder.events(job).count == seq && recorder.others == [["headway:hints:w1", "over"]])
            }
        }
    }

    @Test func nobodyIsMadeByACancel() async throws {
        try await StoreFixture.with(settings: Self.settings) { fixture in
            let before = try await everything(fixture)
            for id in ["nobody", "nobody~1"] {
                #expect(try await fixture.store.cancel(fixture.job(id), by: "me", reason: Self.reason) == .absent)
            }
            #expect(try await everything(fixture) == before)
        }
    }

    /// All keys with what they hold, byte for byte.
    private func everything(_ fixture: StoreFixture) async throws -> [String: RESPValue] {
        var all: [String: RESPValue] = [:]
        for name in try await fixture.keyNames() { all[name] = try await fixture.redis.send(["DUMP", .string(name)]) }
        return all
    }
}
