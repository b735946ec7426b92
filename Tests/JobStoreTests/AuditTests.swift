import JobStore
import ProgressCore
import RedisLink
import Synchronization
import TestSupport
import Testing

/// What an audit must find, must not find, and must mend.
@Suite(.timeLimit(.minutes(3))) struct AuditTests {
    private static func options(fix: Bool) -> AuditOptions {
        var options = AuditOptions(fix: fix)
        // The tests' deployments are swept by nobody: what is wrong stays wrong.
        options.confirmAfter = .zero
        return options
    }

    /// The codes found, with repairs or without.
    private func codes(_ fixture: StoreFixture, fix: Bool = false) async throws -> [String] {
        try await fixture.store.audit(Self.options(fix: fix)).findings.map(\.code.rawValue).sorted()
    }

    // MARK: Any single key

    /// A deployment with a job in every state there is. Returns the leases of those that run.
    private func populate(_ fixture: StoreFixture) async throws -> [Lease] {
        let store = fixture.store
        _ = try await store.prepare()
        try await store.registerQueues(["gpu"])
        try await store.registerWorker(
            WorkerRecord(id: "w1", host: "h", pid: 1, version: "0", queues: ["gpu"], pipeline: "p", concurrency: 1, startedAtMs: 0)
        )
        try await store.configure(queue: "gpu", [.tenantMaxRunning(2)])
        let error = JobError(code: "x", message: "y", isRecoverable: true)
        func asTenant(_ tenant: String) -> (inout JobSubmission) -> Void { { $0.owner = Owner("\(tenant)/u") } }

        _ = try await fixture.submit("ended") { $0.priority = 9 }
        let taught = try await fixture.claim().lease
        var random = SeededGenerator(1)
        _ = try await store.finish(taught, as: .complete, resultJSON: "{}", stagesMs: [])
        _ = try await store.learn(StatisticsTests.record(&random), pipeline: "p", lease: taught)
        try await store.setTrace(taught.job, json: "{}")
        _ = try await fixture.submit("dead") {
            $0.priority = 9
            $0.maxAttempts = 1
        }
        _ = try await store.fail(fixture.claim().lease, error: error, stagesMs: [])
        _ = try await fixture.submit("retried") { $0.priority = 9 }
        _ = try await store.fail(fixture.claim().lease, error: error, stagesMs: [])
        let group = try await fixture.submit("group") { $0.children = 2 }
        for _ in 0..<2 {
            _ = try await fixture.submit("-") {
                $0.childOf = group
                $0.priority = 8
            }
        }
        var leases = [try await fixture.claim().lease]
        _ = try await store.advance(leases[0], write: 1, to: .generating(40))
        _ = try await store.appendLog(leases[0], write: nil, [LogLine(stream: "stderr", text: "x")], droppedBefore: 0)
        for id in ["a1", "a2", "a3", "a4"] { _ = try await fixture.submit(id, change: asTenant("acme")) }
        _ = try await store.cancel(fixture.job("group~2"), by: "me", reason: nil)
        for _ in 0..<2 { leases.append(try await fixture.claim().lease) }
        // It finds acme at its limit and parks the rest.
        guard case .empty = try await store.claim(queue: "gpu", worker: "w2", nonce: "n") else {
            throw TestSupportError(.process, "a third job of the tenant was given out")
        }
        leases.append(
            try await store.open(
                ProducerSubmission(id: fixture.job("held"), pipeline: "p", owner: .anonymous, nonce: "n", producer: "script")
            ).lease
        )
        _ = try await fixture.submit("waiting") { $0.isIdempotent = true }
        _ = try await fixture.submit("delayed") { $0.delayMs = 60_000 }
        return leases
    }

    /// Works like several workers, a producer and the sweeps until nothing lives any more.
    private func workOff(_ fixture: StoreFixture, _ leases: [Lease], _ name: String) async throws {
        let store = fixture.store
        for lease in leases { _ = try? await store.finish(lease, as: .complete, resultJSON: nil, stagesMs: []) }
        var ids: [JobID] = []
        for key in try await fixture.keyNames() where key.contains("}:job:") {
            ids.append(try fixture.job(String(key.drop { $0 != "}" }.dropFirst(6))))
        }
        for turn in 0... {
            let living = try await store.heads(ids).compactMap { $0 }.filter { !$0.phase.isTerminal }
            if living.isEmpty { return }
            guard turn < 200 else {
                Issue.record("without \(name) these never end: \(living.map { "\($0.job) \($0.phase)" })")
                return
            }
            // Delayed jobs and retries are due at once.
            for member in (try await fixture.redis.send(["ZRANGE", "headway:{0}:queue:gpu:delayed", "0", "-1"]).array ?? []) {
                _ = try await fixture.redis.send(["ZADD", "headway:{0}:queue:gpu:delayed", "1", .string(member.string ?? "")])
            }
            for queue in ["gpu", "_"] { _ = try await store.reap(queue: queue) }
            if case .job(let claim) = try await store.claim(queue: "gpu", worker: "w", nonce: "\(turn)") {
                _ = try await store.finish(claim.lease, as: .complete, resultJSON: nil, stagesMs: [])
            }
        }
    }

    @Test func theLossOfAnySingleKeyIsMendedAndEveryJobLeftEnds() async throws {
        var settings = StoreSettings()
        settings.reapInterval = .zero
        settings.random = { UInt64.max }
        try await StoreFixture.with(settings: settings) { fixture in
            _ = try await populate(fixture)
            #expect(try await codes(fixture) == [])
            let names = try await fixture.keyNames().filter { !$0.contains(":claim:") } + ["headway:{0}:claim:n"]
            #expect(names.count > 25, "\(names)")
            var left = Set(Self.expected.keys)
            for name in names {
                _ = try await fixture.redis.send(["FLUSHALL"])
                let leases = try await populate(fixture)
                _ = try await fixture.redis.send(["DEL", .string(name)])
                if let expected = Self.expected[String(name.dropFirst("headway:".utf8.count))] {
                    left.remove(String(name.dropFirst("headway:".utf8.count)))
                    #expect(Set(try await codes(fixture)) == expected, "\(name)")
                }
                let report = try await fixture.store.audit(Self.options(fix: true))
                #expect(report.isClean, "\(name): \(report.findings.filter { !$0.isRepaired })")
                #expect(try await codes(fixture) == [], "\(name): not mended")
                try await workOff(fixture, leases, name)
                #expect(try await codes(fixture) == [], "\(name): at the end")
            }
            #expect(left.isEmpty, "never lost: \(left)")
        }
    }

    /// What the loss of a key looks like.
    private static let expected: [String: Set<String>] = [
        "meta": ["schema_missing"], "queues": ["queue_unregistered"], "workers": [], "{0}:group:group": ["group_miscounted"],
        "{0}:job:waiting": ["place_without_job", "tenant_miscounted"], "{0}:job:held": ["place_without_job"],
        "{0}:job:group~1": ["group_miscounted", "place_without_job", "tenant_miscounted"], "{0}:job:ended": [], "{0}:job:group~2": [],
        "{0}:milestones:ended": [], "{0}:queue:_:leases": ["runs_without_lease"], "{0}:queue:gpu:deadlines": ["no_deadline"],
        "{0}:queue:gpu:ready": ["tenant_miscounted", "waits_nowhere"], "{0}:queue:gpu:delayed": ["tenant_miscounted", "waits_nowhere"],
        "{0}:queue:gpu:parked:acme": ["parked_miscounted", "tenant_miscounted", "waits_nowhere"],
        "{0}:queue:gpu:leases": ["runs_without_lease", "tenant_miscounted"], "{0}:queue:gpu:meta": ["parked_miscounted"],
        "{0}:queue:gpu:tenant:acme": ["tenant_miscounted"],
        "{0}:queue:gpu:tenants": ["parked_miscounted", "tenant_miscounted", "tenant_unknown"], "{wake}:gpu": ["no_wake_token"],
    ]

    // MARK: One fault each

    @Test func eachFaultIsNamedAndMendedWhereThatIsSafe() async throws {
        try await StoreFixture.with { fixture in
            func send(_ command: String...) async throws { _ = try await fixture.redis.send(command.map { .string($0) }) }
            let queue = "headway:{0}:queue:gpu"
            let faults: [(code: String, isMended: Bool, make: () async throws -> Void)] = [
                ("in_two_places", true, { try await send("ZADD", "\(queue):delayed", "9e15", "waiting") }),
                ("in_line_but_not_waiting", true, { try await send("ZADD", "\(queue):ready", "9e15", "running") }),
                ("lease_but_not_running", true, { try await send("ZADD", "\(queue):leases", "9e15", "ended") }),
                ("ended_with_deadline", true, { try await send("ZADD", "\(queue):deadlines", "9e15", "ended") }),
                ("no_ttl", true, { try await send("PERSIST", "headway:{0}:job:waiting") }),
                ("no_ttl", true, { try await send("PERSIST", "headway:{0}:milestones:ended") }),
                ("no_ttl", true, { try await send("SET", "headway:worker:w", "x") }),
                ("unknown_key", false, { try await send("SET", "headway:{0}:nonsense", "x") }),
                ("unknown_key", false, { try await send("SET", "headway:else", "x") }),
                ("corrupt", false, { try await send("HDEL", "headway:{0}:job:ended", "owner") }),
                ("body_is_not_the_last_event", false, { try await send("HSET", "headway:{0}:job:ended", "seq", "99") }),
                ("schema_missing", false, { try await send("HSET", "headway:meta", "partitions", "7") }),
                ("worker_leftover", true, { try await send("ZADD", "headway:workers", "1", "w") }),
                ("nobody_sweeps", true, { try await send("ZADD", "\(queue):leases", "1", "running") }),
            ]
            for (code, isMended, make) in faults {
                try await send("FLUSHALL")
                _ = try await fixture.store.prepare()
                try await fixture.store.registerQueues(["gpu"])
                _ = try await fixture.submit("ended")
                _ = try await fixture.store.finish(fixture.claim().lease, as: .complete, resultJSON: nil, stagesMs: [])
                _ = try await fixture.submit("running")
                _ = try await fixture.claim()
                _ = try await fixture.submit("waiting")
                #expect(try await codes(fixture) == [])
                try await make()
                let found = try await fixture.store.audit(Self.options(fix: false))
                #expect(found.findings.contains { $0.code.rawValue == code } && found.left > 0, "\(code): \(found.findings)")
                #expect(found.json.hasPrefix("{\"clean\":false,") && found.json.contains("{\"code\":\"\(code)\","))
                let mended = try await fixture.store.audit(Self.options(fix: true))
                #expect(mended.isClean == isMended, "\(code): \(mended.findings)")
                #expect(mended.repaired > 0 || !isMended, "\(code)")
                #expect(try await codes(fixture).contains(code) == !isMended, "\(code)")
            }
        }
    }

    @Test func aLineThatMayNotMoveNeedsNoToken() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.submit("a")
            _ = try await fixture.submit("b")
            func loseToken() async throws { _ = try await fixture.redis.send(["DEL", "headway:{wake}:gpu"]) }
            try await loseToken()
            #expect(try await codes(fixture) == ["no_wake_token", "queue_unregistered"])
            try await fixture.store.registerQueues(["gpu"])
            #expect(try await codes(fixture) == ["no_wake_token"])
            try await fixture.store.configure(queue: "gpu", [.paused(true)])
            try await loseToken()
            #expect(try await codes(fixture) == [])
            try await fixture.store.configure(queue: "gpu", [.paused(false), .maxRunning(1)])
            _ = try await fixture.claim()
            try await loseToken()
            #expect(try await codes(fixture) == [])
        }
    }

    @Test func onlyOneProcessAuditsAtATime() async throws {
        try await StoreFixture.with { fixture in
            let first = try await fixture.store.mayAudit(every: .seconds(3600))
            let second = try await fixture.store.mayAudit(every: .seconds(3600))
            #expect(first && !second)
            #expect(try await codes(fixture) == [])
        }
    }

    // MARK: A long line

    /// One submitted job and its copies stand for many submits.
    private static let copies = """
        local q = '{0}:queue:gpu:'
        for i = 1, 20000 do
          local job = 'copy-' .. i
          redis.call('COPY', KEYS[1] .. 'first', KEYS[1] .. job)
          redis.call('ZADD', 'headway:' .. q .. 'ready', i, job)
          redis.call('ZADD', 'headway:' .. q .. 'deadlines', ARGV[1], job)
        end
        return redis.call('HINCRBY', 'headway:' .. q .. 'tenant:acme', 'queued', 20000)
        """

    @Test func theTenantsOfALongLineAreCheckedInSum() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.store.prepare()
            try await fixture.store.registerQueues(["gpu"])
            _ = try await fixture.submit("first") { $0.owner = Owner("acme/u") }
            let due = try await fixture.redis.send(["ZSCORE", "headway:{0}:queue:gpu:deadlines", "first"]).string ?? ""
            _ = try await fixture.redis.send(["EVAL", .string(Self.copies), "1", "headway:{0}:job:", .string(due)])
            let report = try await fixture.store.audit(Self.options(fix: false))
            #expect(report.findings.isEmpty && report.uncounted == ["gpu"], "\(report.findings.first?.message ?? "")")

            _ = try await fixture.redis.send(["HINCRBY", "headway:{0}:queue:gpu:tenant:acme", "queued", "-1"])
            #expect(try await codes(fixture, fix: true) == ["tenants_do_not_add_up"])
            _ = try await fixture.redis.send(["HINCRBY", "headway:{0}:queue:gpu:tenant:acme", "queued", "1"])
            _ = try await fixture.redis.send(["HINCRBY", "headway:{0}:queue:gpu:tenant:acme", "running", "1"])
            #expect(try await codes(fixture) == ["tenants_do_not_add_up"])
            _ = try await fixture.redis.send(["HINCRBY", "headway:{0}:queue:gpu:tenant:acme", "running", "-1"])
            // What waits outside the line is counted however long that is: depth limits go by it.
            _ = try await fixture.redis.send(["HSET", "headway:{0}:queue:gpu:meta", "parked", "7"])
            #expect(try await codes(fixture, fix: true) == ["parked_miscounted"])
            #expect(try await codes(fixture) == [])
        }
    }

    // MARK: While everything moves

    @Test func anAuditBesideBusyWorkersRaisesNoFalseAlarm() async throws {
        var settings = StoreFixture.quickSettings
        settings.lease = .milliseconds(40)
        try await StoreFixture.with(settings: settings) { fixture in
            try await fixture.store.registerQueues(["gpu"])
            try await fixture.store.configure(queue: "gpu", [.tenantMaxRunning(3), .weightOf(tenant: "t1", 3)])
            let isOver = Flag()
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                tasks.addTask {
                    // Each audit looks twice, with nothing in between.
                    repeat {
                        let report = try await fixture.store.audit(Self.options(fix: false))
                        #expect(report.findings.isEmpty, "\(report.findings)")
                    } while !isOver.isSet.load(ordering: .relaxed)
                }
                try await withThrowingTaskGroup(of: Void.self) { lives in
                    for seed in 0..<4 { lives.addTask { try await Self.live(fixture, seed: UInt64(seed)) } }
                    try await lives.waitForAll()
                }
                isOver.isSet.store(true, ordering: .relaxed)
                try await tasks.waitForAll()
            }
            #expect(try await codes(fixture) == [])
        }
    }

    private final class Flag: Sendable {
        let isSet = Atomic(false)
    }

    /// Several tenants' submits, workers that finish, fail, hand back or forget, cancels and sweeps.
    private static func live(_ fixture: StoreFixture, seed: UInt64) async throws {
        let store = fixture.store
        var random = SeededGenerator(seed: seed)
        var leases: [Lease] = []
        let error = JobError(code: "x", message: "y", isRecoverable: true)
        for step in 0..<600 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<3:
                let tenant = Int.random(in: 0..<3, using: &random)
                let delay = Int.random(in: 0..<5, using: &random)
                let group = step % 60 == 0 ? 2 : nil
                _ = try await fixture.submit("j-\(seed)-\(step)") {
                    $0.owner = Owner("t\(tenant)/u")
                    $0.children = group
                    if group == nil { $0.delayMs = delay == 0 ? 10 : 0 }
                }
                if group != nil {
                    let parent = try fixture.job("j-\(seed)-\(step)")
                    for _ in 0..<2 {
                        _ = try await fixture.submit("-") {
                            $0.owner = Owner("t\(tenant)/u")
                            $0.childOf = parent
                        }
                    }
                }
            case 3..<5:
                if case .job(let claim) = try await store.claim(queue: "gpu", worker: "w\(seed)", nonce: "\(seed)-\(step)") {
                    leases.append(claim.lease)
                }
            case 5..<8:
                guard let lease = leases.popLast() else { continue }
                switch Int.random(in: 0..<5, using: &random) {
                case 0: _ = try await store.fail(lease, error: error, stagesMs: [])
                case 1: _ = try await store.release(lease)
                case 2: _ = try await store.advance(lease, write: 1, to: .generating(30))
                default: _ = try await store.finish(lease, as: .complete, resultJSON: nil, stagesMs: [])
                }
            case 8:
                let job = try fixture.job("j-\(seed)-\(Int.random(in: 0...step, using: &random))")
                _ = try await store.cancel(job, by: "fate", reason: nil)
            default:
                for queue in ["gpu", "_"] { _ = try await store.reap(queue: queue) }
            }
        }
    }
}
