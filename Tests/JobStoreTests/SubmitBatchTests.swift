import JobStore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// Submits that go together: each must end as if it had come alone.
@Suite(.timeLimit(.minutes(5))) struct SubmitBatchTests {
    // MARK: The same as one by one

    @Test(arguments: [1, 2, 3] as [UInt64])
    func aBatchDoesWhatItsSubmitsDoOneByOne(seed: UInt64) async throws {
        try await StoreFixture.with { fixture in
            var random = SeededGenerator(seed: seed)
            let together = JobStore(redis: fixture.redis, keys: Keys(prefix: "together"))
            let oneByOne = JobStore(redis: fixture.redis, keys: Keys(prefix: "alone"))
            for step in 0..<30 {
                for change in Self.change(step) {
                    for store in [together, oneByOne] { try await store.configure(queue: change.queue, [change.setting]) }
                }
                let jobs = try (0..<Int.random(in: 1...60, using: &random)).map { _ in try Self.randomJob(fixture, step, &random) }
                let outcomes = await together.submit(jobs).map(Self.text)
                var expected: [String] = []
                for job in jobs { expected.append(Self.text(await oneByOne.submit([job])[0])) }
                #expect(outcomes == expected, "seed \(seed), step \(step)")
            }
            let (found, wanted) = (try await Self.state(fixture, "together"), try await Self.state(fixture, "alone"))
            #expect(found.count > 100 && Set(found.keys) == Set(wanted.keys), "seed \(seed)")
            for (key, value) in found {
                #expect(value.texts == wanted[key]?.texts, "seed \(seed): \(key)")
                // The two were written and read at different times.
                #expect(abs(value.ttlMs - (wanted[key]?.ttlMs ?? .max / 2)) < 60_000, "seed \(seed): \(key)")
            }
        }
    }

    private static func change(_ step: Int) -> [(queue: String, setting: QueueSetting)] {
        switch step {
        case 0:
            [
                ("tight", .maxDepth(37)), ("fair", .tenantMaxQueued(90)), ("fair", .maxQueuedOf(tenant: "t1", 11)),
                ("fair", .weightOf(tenant: "t2", 3)), ("parks", .maxRunningOf(tenant: "t0", 0)),
            ]
        case 20: [("fair", .draining(true)), ("tight", .maxDepth(60))]
        case 25: [("fair", .draining(false))]
        default: []
        }
    }

    private static func randomJob(_ fixture: StoreFixture, _ step: Int, _ random: inout SeededGenerator) throws -> JobSubmission {
        // Some ids come again, in the same batch or later, with the same body or another.
        let number = Int.random(in: 0..<100, using: &random) < 20 ? Int.random(in: 0..<300, using: &random) : step * 1000 + random.int(1000)
        let queues = ["open", "tight", "fair", "parks"]
        var job = JobSubmission(
            id: try fixture.job("j\(number)"),
            queue: queues[number % queues.count],
            pipeline: "p\(number % 2)",
            owner: Owner("t\(number % 3)/u\(number % 2)"),
            paramsJSON: random.int(10) == 0 ? "{\"other\":1}" : "{}"
        )
        job.priority = number % 7 == 0 ? 9 : 5
        if number % 11 == 0 { job.delayMs = 60_000 }
        if number % 13 == 0 { job.expiresAtMs = 4_000_000_000_000 }
        if number % 5 == 0 { job.traceparent = "00-\(number)" }
        if number % 6 == 0 { job.prefer = "big" }
        job.isIdempotent = number % 8 == 0
        return job
    }

    private static func text(_ result: Result<SubmitOutcome, StoreError>) -> String {
        switch result {
        case .success(let outcome): "\(outcome.isNew) \(outcome.head.job) \(outcome.head.seq) \(outcome.head.phase) \(outcome.head.owner)"
        case .failure(let error): error.description
        }
    }

    /// Every key of a deployment without its prefix, and what it holds but for times.
    private static func state(_ fixture: StoreFixture, _ prefix: String) async throws -> [String: (texts: [String], ttlMs: Int)] {
        var state: [String: (texts: [String], ttlMs: Int)] = [:]
        for key in try await fixture.keyNames() where key.hasPrefix("\(prefix):") {
            let isTimed = key.hasSuffix(":deadlines") || key.hasSuffix(":delayed")
            let command: [RedisArgument] =
                switch try await fixture.redis.send(["TYPE", .string(key)]).string {
                case "hash": ["HGETALL", .string(key)]
                case "zset": isTimed ? ["ZRANGE", .string(key), "0", "-1"] : ["ZRANGE", .string(key), "0", "-1", "WITHSCORES"]
                case "set": ["SMEMBERS", .string(key)]
                case "list": ["LRANGE", .string(key), "0", "-1"]
                default: ["GET", .string(key)]
                }
            let reply = try await fixture.redis.send(command)
            var texts = (reply.array ?? [reply]).map { $0.string ?? "" }
            let isHash = command[0] == "HGETALL"
            if isHash {
                texts = stride(from: 0, to: texts.count, by: 2).map { index in
                    let isTime = ["created_at", "updated_at", "expires_at", "body"].contains(texts[index])
                    return isTime ? texts[index] : "\(texts[index])=\(texts[index + 1])"
                }
            }
            let ttlMs = try await fixture.redis.send(["PTTL", .string(key)]).int ?? 0
            let order = isTimed || isHash || key.hasSuffix(":tenants") ? texts.sorted() : texts
            state[String(key.dropFirst(prefix.count))] = (order, ttlMs)
        }
        return state
    }

    // MARK: Many at once

    @Test func thousandsOfConcurrentSubmitsAreJoinedAndEachIsThereOnce() async throws {
        try await StoreFixture.with { fixture in try await Self.storm(fixture, fixture.store) }
    }

    @Test func inClusterEachPartitionHasItsOwnCalls() async throws {
        func formCluster(_ server: RedisServer) async throws {
            try await server.cli("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            try await eventually("the cluster is up") { try await server.cli("CLUSTER", "INFO").contains("cluster_state:ok") }
        }
        let options = RedisServer.Options(extraArguments: ["--cluster-enabled", "yes"])
        try await StoreFixture.with(options, first: formCluster) { fixture in
            var settings = StoreSettings()
            settings.useShardedPublish = true
            let store = JobStore(redis: fixture.redis, keys: Keys(prefix: "c", partitions: 4), settings: settings)
            _ = try await store.prepare()
            try await Self.storm(fixture, store)
        }
    }

    /// 40 tasks submit 100 jobs each, every fourth id is another task's too; a limit of 500 is hit on the way.
    private static func storm(_ fixture: StoreFixture, _ store: JobStore) async throws {
        let limit = 500 / store.keys.partitions
        try await store.registerQueues(["q0", "q1", "q2"])
        try await store.configure(queue: "q2", [.maxDepth(limit)])
        let before = try await scriptCalls(fixture)
        let outcomes = try await withThrowingTaskGroup(of: [(JobID, Bool?)].self) { group in
            for task in 0..<40 {
                group.addTask {
                    var outcomes: [(JobID, Bool?)] = []
                    for number in 0..<100 {
                        let name = number % 4 == 0 ? "shared-\(number)-\(task / 2)" : "own-\(number)-\(task)"
                        var job = JobSubmission(
                            id: try fixture.job(name),
                            queue: "q\(number % 3)",
                            pipeline: "p",
                            owner: Owner("t\(number % 5)/u"),
                            paramsJSON: "{}"
                        )
                        job.priority = number % 2
                        do throws(StoreError) {
                            outcomes.append((job.id, try await store.submit(job).isNew))
                        } catch {
                            #expect(error.code == .full && job.queue == "q2")
                            outcomes.append((job.id, nil))
                        }
                    }
                    return outcomes
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(outcomes.count == 4000)
        let calls = try await scriptCalls(fixture) - before
        #expect(calls < 4000 / 2, "\(calls) calls: they were not joined")
        var created: [JobID: Int] = [:]
        for (job, isNew) in outcomes where isNew == true { created[job, default: 0] += 1 }
        #expect(created.values.allSatisfy { $0 == 1 })
        for (job, isNew) in outcomes where isNew == false { #expect(created[job] == 1) }
        var lines = [0, 0, 0]
        for partition in 0..<store.keys.partitions {
            for queue in 0..<3 {
                let key = "\(store.keys.prefix):{\(store.keys.tag(partition))}:queue:q\(queue):ready"
                lines[queue] += try await fixture.redis.send(["ZCARD", .string(key)]).int ?? 0
            }
        }
        #expect(lines.reduce(0, +) == created.count)
        #expect(lines[2] == store.keys.partitions * limit && outcomes.contains { $0.1 == nil }, "the limit is met exactly")
        var options = AuditOptions(fix: false)
        options.confirmAfter = .zero
        let report = try await store.audit(options)
        #expect(report.isClean && report.jobs == created.count, "\(report.json.prefix(2000))")
    }

    private static func scriptCalls(_ fixture: StoreFixture) async throws -> Int {
        let statistics = try await fixture.redis.send(["INFO", "commandstats"]).string ?? ""
        return statistics.split(whereSeparator: \.isNewline).reduce(0) { sum, line in
            guard line.hasPrefix("cmdstat_evalsha:calls=") else { return sum }
            return sum + (Int(line.dropFirst("cmdstat_evalsha:calls=".count).prefix { $0 != "," }) ?? 0)
        }
    }

    @Test func theOrderOfTheCallsIsTheOrderOfTheLine() async throws {
        try await StoreFixture.with { fixture in
            let jobs = try (0..<300).map { try Self.plain(fixture, "j\($0)") }
            for outcome in await fixture.store.submit(jobs) { #expect(try outcome.get().isNew) }
            for job in jobs { #expect(try await fixture.claim().lease.job == job.id) }
        }
    }

    private static func plain(_ fixture: StoreFixture, _ name: String, params: String = "{}") throws -> JobSubmission {
        JobSubmission(id: try fixture.job(name), queue: "gpu", pipeline: "p", owner: .anonymous, paramsJSON: params)
    }
}

extension SeededGenerator {
    fileprivate mutating func int(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &self) }
}
