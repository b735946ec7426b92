import NIOPosix
import ProgressCore
import RedisLink
import TestSupport
import Testing

@testable import JobStore

/// Submits that go together while something is wrong: with one of them, with Redis, with the way there, with who waits.
@Suite(.timeLimit(.minutes(5))) struct SubmitBatchFaultTests {
    private static func job(_ fixture: StoreFixture, _ name: String, owner: String = "anonymous", params: String = "{}") throws
        -> JobSubmission
    {
        JobSubmission(id: try fixture.job(name), queue: "gpu", pipeline: "p", owner: Owner(owner), paramsJSON: params)
    }

    private static func ready(_ fixture: StoreFixture) async throws -> Int? {
        try await fixture.redis.send(["ZCARD", "headway:{0}:queue:gpu:ready"]).int
    }

    private static func isClean(_ fixture: StoreFixture) async throws -> Bool {
        var options = AuditOptions(fix: false)
        options.confirmAfter = .zero
        try await fixture.store.registerQueues(["gpu"])
        return try await fixture.store.audit(options).isClean
    }

    /// With a client of its own.
    private static func with(commandTimeout: Duration, _ body: (StoreFixture, RedisClient) async throws -> Void) async throws {
        try await StoreFixture.with { fixture in
            var configuration = fixture.server.configuration(poolSize: 1)
            configuration.commandTimeout = commandTimeout
            let redis = RedisClient(configuration: configuration, eventLoopGroup: MultiThreadedEventLoopGroup.singleton, logger: .quiet)
            let running = Task { try await redis.run() }  // ended below
            defer { running.cancel() }
            try await body(fixture, redis)
        }
    }

    @Test func whatIsWrongWithOneTenantStopsNoOther() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.redis.send(["SET", "headway:{0}:queue:gpu:tenant:bad", "x"])
            _ = try await fixture.redis.send(["SET", "headway:{0}:job:j7", "x"])
            let jobs = try (0..<20).map { try Self.job(fixture, "j\($0)", owner: $0 % 4 == 3 && $0 != 7 ? "bad/u" : "good/u") }
            for (number, outcome) in await fixture.store.submit(jobs).enumerated() {
                switch outcome {
                case .success(let outcome): #expect(outcome.isNew && (number % 4 != 3))
                case .failure(let error): #expect(error.code == (number == 7 ? .conflict : .corrupt) && number % 4 == 3)
                }
            }
            #expect(try await Self.ready(fixture) == 15)
            for number in [3, 11, 15, 19] { #expect(try await fixture.store.snapshot(jobs[number].id) == nil, "nothing half-written") }
        }
    }

    @Test func aFullRedisAnswersWhatItKnowsAndLeavesNothingHalfWritten() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.store.submit(Self.job(fixture, "known"))
            _ = try await fixture.redis.send(["CONFIG", "SET", "maxmemory", "1"])
            let outcomes = await fixture.store.submit(try ["a", "known", "b", "c"].map { try Self.job(fixture, $0) })
            #expect(try !outcomes[1].get().isNew)
            for index in [0, 2, 3] {
                guard case .failure(let error) = outcomes[index] else {
                    Issue.record("a full Redis took a job")
                    continue
                }
                #expect(error.code == .unavailable && error.message.contains("maxmemory"))
            }
            _ = try await fixture.redis.send(["CONFIG", "SET", "maxmemory", "0"])
            for name in ["a", "b", "c"] { #expect(try await fixture.store.snapshot(fixture.job(name)) == nil) }
            #expect(try await Self.isClean(fixture))
        }
    }

    @Test func whoGivesUpBeforeTheJobWasSentLeavesNothing() async throws {
        try await StoreFixture.with { fixture in
            fixture.server.freeze()
            defer { fixture.server.thaw() }
            // More than go in one call.
            let first = try (0..<20).map { try Self.job(fixture, "first-\($0)") }
            let sent = Task { await fixture.store.submit(first) }  // ended below
            try await eventually("as many calls as may be are under way") { fixture.redis.pendingCommands == 4 }
            let left = try Self.job(fixture, "left")
            let waiting = Task { () throws(StoreError) in try await fixture.store.submit(left) }  // cancelled below
            let stays = try Self.job(fixture, "stays")
            let staying = Task { try await fixture.store.submit(stays) }  // ended below
            // Whether it waits already or has yet to begin: it must not be sent.
            waiting.cancel()
            let refusal = await storeError { try await waiting.value }
            #expect(refusal?.code == .unavailable && refusal?.mayHaveRun == false)
            fixture.server.thaw()
            for outcome in await sent.value { #expect(try outcome.get().isNew) }
            #expect(try await staying.value.isNew)
            #expect(try await fixture.store.snapshot(left.id) == nil)
            #expect(try await Self.ready(fixture) == 21)
        }
    }

    @Test func aLostAnswerIsRepeatedWithoutHarm() async throws {
        try await Self.with(commandTimeout: .milliseconds(300)) { fixture, redis in
            let store = JobStore(redis: redis, keys: Keys())
            let jobs = try (0..<100).map { try Self.job(fixture, "j\($0)") }
            try await eventually("a connection") { (try? await store.submit(jobs[0])) != nil }
            fixture.server.freeze()
            let lost = await store.submit(jobs)
            fixture.server.thaw()
            var mayHaveRun = 0
            for outcome in lost {
                guard case .failure(let error) = outcome else {
                    Issue.record("a frozen Redis answered")
                    continue
                }
                #expect(error.code == .unavailable)
                if error.mayHaveRun { mayHaveRun += 1 }
            }
            #expect((1..<100).contains(mayHaveRun), "what was sent may have run, what waited has not")
            // The calls reached Redis: it runs them although nobody reads the answers.
            try await eventually("the lost calls have run") { try await Self.ready(fixture) ?? 0 > 1 }
            for (number, outcome) in await fixture.store.submit(jobs).enumerated() {
                #expect(try outcome.get().head.job == jobs[number].id)
            }
            #expect(try await Self.ready(fixture) == 100)
            #expect(try await Self.isClean(fixture))
        }
    }

    @Test func whileRedisIsAwayEverybodyIsToldSoon() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.store.submit(Self.job(fixture, "before"))
            fixture.server.kill()
            let clock = ContinuousClock()
            let start = clock.now
            let jobs = try (0..<4000).map { try Self.job(fixture, "j\($0)") }
            for outcome in await fixture.store.submit(jobs) {
                guard case .failure(let error) = outcome else {
                    Issue.record("a dead Redis answered")
                    continue
                }
                #expect(error.code == .unavailable)
            }
            // One wait for a connection (250 ms), not one for each of 125 calls: those would take 31 s.
            #expect(clock.now - start < .seconds(20))
            try await fixture.server.start()
            try await eventually(within: .seconds(30), "submits work again") {
                (try? await fixture.store.submit(Self.job(fixture, "after"))) != nil
            }
        }
    }

    @Test func theLineOfThoseThatWaitHasAnEnd() async throws {
        // Longer than anything here takes: who waits must not be told before the line is full.
        try await Self.with(commandTimeout: .seconds(120)) { fixture, redis in
            let store = JobStore(redis: redis, keys: Keys())
            _ = try await store.submit(Self.job(fixture, "first"))
            fixture.server.freeze()
            defer { fixture.server.thaw() }
            let jobs = try (0..<StoreLimits.waitingSubmits + 200).map { try Self.job(fixture, "j\($0)") }
            let submitted = Task { await store.submit(jobs) }  // ended below
            let more = try await Self.fill(store, to: StoreLimits.waitingSubmits) { try Self.job(fixture, "more-\($0)") }
            try await Self.expectRefusal(store, try Self.job(fixture, "one-more"))

            let other = JobStore(redis: redis, keys: Keys(prefix: "other"))
            // With what else a job is taken to weigh, the most that params may have.
            let large = "{\"x\":\"\(String(repeating: "x", count: StoreLimits.paramsBytes - SubmitBatcher.Entry.overheadBytes - 8))\"}"
            let most = StoreLimits.waitingSubmitBytes / StoreLimits.paramsBytes
            let heavy = try (0..<most + 20).map { try Self.job(fixture, "h\($0)", params: large) }
            let loaded = Task { await other.submit(heavy) }  // ended below
            let moreHeavy = try await Self.fill(other, to: most) { try Self.job(fixture, "heavy-\($0)", params: large) }
            try await Self.expectRefusal(other, try Self.job(fixture, "one-more", params: large))

            fixture.server.thaw()
            for (outcomes, least) in [
                (await submitted.value, StoreLimits.waitingSubmits - more), (await loaded.value, most - moreHeavy),
            ] {
                #expect(outcomes.count { (try? $0.get()) != nil } >= least, "who waited got in")
            }
            #expect(store.submits.waiting == 0 && other.submits.waiting == 0)
        }
    }

    /// Two calls take what they can carry, before or after the last that was refused: one more at a time, until nothing has room.
    /// Returns how many that were.
    private static func fill(_ store: JobStore, to most: Int, _ job: (Int) throws -> JobSubmission) async throws -> Int {
        var number = 0
        try await eventually(within: .seconds(60), "the line is full") {
            if store.submits.waiting == most { return true }
            let one = try job(number)
            number += 1
            Task { try await store.submit(one) }  // answered when Redis goes on
            return false
        }
        return number
    }

    private static func expectRefusal(_ store: JobStore, _ job: JobSubmission) async throws {
        let refusal = await storeError { try await store.submit(job) }
        #expect(refusal?.code == .unavailable && refusal?.mayHaveRun == false)
        #expect(refusal?.message.contains("wait already") == true)
    }

    @Test func theScriptRefusesPartsOfACallAndNotTheRest() async throws {
        try await StoreFixture.with { fixture in
            let source = try #require(JobStore.scripts.first { $0.name == "submit" }?.source)
            func call(_ arguments: [RedisArgument]) async throws -> RESPValue {
                try await fixture.redis.send(
                    ["EVAL", .string(source), "2", "headway:{0}:job:a", "headway:{wake}:gpu", "PUBLISH", "gpu"] + arguments
                )
            }
            func head(_ count: Int, _ texts: RedisArgument...) -> [RedisArgument] {
                [.int(count), .int(texts.count), "p", "t/u", "5", "3", "3600000"] + texts
            }
            let reply = try await call(head(1, "colour", "red") + ["a", "{}"] + head(2) + ["b", "{}", "b", "{}"])
            let answers = try #require(reply.array)
            #expect(answers.count == 3)
            #expect(answers[0].array?.map(\.string) == ["unknown_field", "colour"])
            #expect(answers[1].string?.hasPrefix("{\"job\":\"b\",\"seq\":1,\"type\":\"phase\",\"phase\":\"QUEUED\"") == true)
            #expect(answers[2].array?.first?.string == "exists" && answers[2].array?[2] == answers[1])
            #expect(try await Self.ready(fixture) == 1)
            let many = (0..<101).flatMap { ["m\($0)", "{}"] }.map { RedisArgument.string($0) }
            await #expect(throws: RedisError.self) { try await call(head(101) + many) }
            #expect(try await Self.ready(fixture) == 1, "too many: none")
        }
    }
}
