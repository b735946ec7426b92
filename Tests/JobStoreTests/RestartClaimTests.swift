import JobStore
import NIOPosix
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// Redis is killed while a claim is under way: whether it ran or not, the same nonce brings one job, one lease and one fence.
@Suite(.timeLimit(.minutes(5))) struct RestartClaimTests {
    /// A store of a worker's own, reached through `port`.
    private static func withStore(
        _ fixture: StoreFixture,
        port: Int,
        _ body: (JobStore, RedisClient) async throws -> Void
    ) async throws {
        var configuration = fixture.server.configuration(poolSize: 1)
        configuration.address = .tcp(host: "127.0.0.1", port: port)
        // Longer than anything here takes: an answer is lost because it never comes.
        configuration.commandTimeout = .seconds(120)
        let redis = RedisClient(configuration: configuration, eventLoopGroup: MultiThreadedEventLoopGroup.singleton, logger: .quiet)
        let running = Task { try await redis.run() }  // ended below
        defer { running.cancel() }
        try await eventually(within: .seconds(60), "a connection") { redis.isConnected }
        try await body(JobStore(redis: redis, keys: fixture.store.keys, settings: fixture.store.settings), redis)
    }

    /// A durable Redis with so many jobs in line, and a worker whose way to it can be cut.
    private static func with(
        jobs: Int,
        _ body: (StoreFixture, JobStore, TCPProxy) async throws -> Void
    ) async throws {
        var settings = StoreSettings()
        settings.lease = .seconds(60)
        settings.reapInterval = .zero
        try await StoreFixture.with(.init(isDurable: true), settings: settings) { fixture in
            try await fixture.store.registerQueues(["gpu"])
            for number in 0..<jobs { _ = try await fixture.submit("job-\(number)") }
            let proxy = try await TCPProxy.start(to: fixture.server.port)
            defer { proxy.stop() }
            try await withStore(fixture, port: proxy.port) { store, _ in try await body(fixture, store, proxy) }
        }
    }

    /// Starts the killed server again, and waits until everybody reaches it.
    private static func restart(_ fixture: StoreFixture, _ stores: [JobStore]) async throws {
        try await fixture.server.start()
        for redis in [fixture.redis] + stores.map(\.redis) {
            try await eventually(within: .seconds(30), "Redis is back") { (try? await redis.send(["PING"])) != nil }
        }
    }

    private static func size(_ fixture: StoreFixture, _ place: String) async throws -> Int? {
        try await fixture.redis.send(["ZCARD", .string("headway:{0}:queue:gpu:\(place)")]).int
    }

    private static func claim(_ store: JobStore, _ nonce: String) async throws -> Claim {
        guard case .job(let claim) = try await store.claim(queue: "gpu", worker: "w1", nonce: nonce) else {
            throw TestSupportError(.timedOut, "nothing to claim for \(nonce)")
        }
        return claim
    }

    /// What `act` does runs and is on disk when `hasRun` says so; then its answer and Redis are lost, and Redis comes back.
    private static func loseTheAnswer(
        _ fixture: StoreFixture,
        _ store: JobStore,
        _ proxy: TCPProxy,
        hasRun: () async throws -> Bool,
        _ act: @escaping @Sendable () async throws -> Void
    ) async throws {
        // As after the first call: one that Redis does not know yet is sent twice, and the second waits for an answer to the first.
        for script in JobStore.scripts { _ = try await fixture.redis.send(["SCRIPT", "LOAD", .string(script.source)]) }
        proxy.set(.deaf)
        let acting = Task { try await act() }  // ended below
        try await eventually("it has run") { try await hasRun() }
        // Before the kill: with the end of the connection the answer would still be read.
        proxy.set(.cut)
        let lost = await storeError { try await acting.value }
        #expect(lost?.code == .unavailable && lost?.mayHaveRun == true, "\(lost.debugDescription)")
        fixture.server.kill()
        proxy.set(.open)
        try await restart(fixture, [store])
    }

    @Test func aClaimThatRanBeforeTheKillIsFoundAgain() async throws {
        try await Self.with(jobs: 2) { fixture, store, proxy in
            try await Self.loseTheAnswer(fixture, store, proxy, hasRun: { try await Self.size(fixture, "leases") == 1 }) {
                _ = try await Self.claim(store, "n1")
            }
            let stored = try await fixture.snapshot(fixture.job("job-0")).fields
            let claim = try await Self.claim(store, "n1")
            #expect(claim.lease.job.text == "job-0" && claim.attempt == 1)
            #expect(claim.lease.fence == stored["fence"] && stored["worker"] == "w1")
            #expect(try await Self.claim(store, "n1").lease == claim.lease)
            try await Self.expectOneRuns(fixture, claim.lease, store)
        }
    }

    @Test func aClaimThatDidNotRunBeforeTheKillIsMadeThen() async throws {
        try await Self.with(jobs: 2) { fixture, _, _ in
            try await Self.withStore(fixture, port: fixture.server.port) { store, redis in
                fixture.server.freeze()
                let claiming = Task { try await Self.claim(store, "n1") }  // ended below
                try await eventually("the claim is under way") { redis.pendingCommands == 1 }
                fixture.server.kill()
                let lost = await storeError { try await claiming.value }
                #expect(lost?.code == .unavailable, "\(lost.debugDescription)")
                try await Self.restart(fixture, [store])
                #expect(try await Self.size(fixture, "leases") == 0)
                let claim = try await Self.claim(store, "n1")
                #expect(claim.lease.job.text == "job-0" && claim.attempt == 1)
                #expect(try await Self.claim(store, "n1").lease == claim.lease)
                try await Self.expectOneRuns(fixture, claim.lease, store)
            }
        }
    }

    /// One of two jobs runs, under the first fence there is, and ends once.
    private static func expectOneRuns(_ fixture: StoreFixture, _ lease: Lease, _ store: JobStore) async throws {
        #expect(try await size(fixture, "leases") == 1)
        #expect(try await size(fixture, "ready") == 1)
        #expect(try await fixture.redis.send(["HGET", "headway:{0}:queue:gpu:meta", "fence"]).int == 1)
        let standing = try await JobStanding.of(lease.job, fixture)
        #expect(standing.running == 1 && standing.queued == 1 && standing.fields["fence"] == lease.fence)
        #expect(try await fixture.findings() == [])
        let other = try await claim(store, "n2").lease
        #expect(other.job != lease.job && other.fence != lease.fence)
        for one in [lease, other] {
            #expect(try await store.advance(one, write: 1, to: .generating(30)) == .accepted(seq: 2, wasClamped: false, cancel: nil))
            #expect(try await store.finish(one, as: .complete, resultJSON: nil, stagesMs: []) == .done)
        }
        #expect(try await fixture.redis.send(["XLEN", "headway:{0}:ended"]).int == 2)
        #expect(try await JobStanding.of(lease.job, fixture).ends == ["COMPLETE"])
        #expect(try await fixture.findings() == [])
    }

    @Test func aClaimThatNobodyAsksForAgainComesBackByItsLease() async throws {
        try await Self.with(jobs: 1) { fixture, store, proxy in
            try await Self.loseTheAnswer(fixture, store, proxy, hasRun: { try await Self.size(fixture, "leases") == 1 }) {
                _ = try await Self.claim(store, "n1")
            }
            let job = try fixture.job("job-0")
            let fence = try #require(try await fixture.snapshot(job).fields["fence"])
            let lost = Lease(job: job, queue: "gpu", fence: fence, worker: "w1", nonce: "n1")
            try await fixture.loseLease(lost)
            let heir = try await fixture.claim(worker: "w2")
            #expect(heir.lease.job == job && heir.attempt == 2 && heir.lease.fence != fence)
            // The first one asks after all: the job is not its own any more, and there is no other.
            guard case .empty = try await store.claim(queue: "gpu", worker: "w1", nonce: "n1") else {
                Issue.record("a claim that was lost was given out again")
                return
            }
            #expect(try await store.heartbeat(lost) == .lost)
            #expect(try await fixture.store.finish(heir.lease, as: .complete, resultJSON: nil, stagesMs: []) == .done)
            #expect(try await JobStanding.of(job, fixture).ends == ["COMPLETE"])
            #expect(try await fixture.findings() == [])
        }
    }

    @Test func theNextJobThatCameWithAnEndIsFoundAgain() async throws {
        try await Self.with(jobs: 3) { fixture, store, proxy in
            let first = try await Self.claim(store, "n1").lease
            let request = ClaimRequest(queue: "gpu", worker: "w1")
            let hasRun = { try await fixture.snapshot(first.job).phase == .complete }
            try await Self.loseTheAnswer(fixture, store, proxy, hasRun: hasRun) {
                _ = try await store.finish(first, as: .complete, resultJSON: "{}", stagesMs: [], then: request)
            }
            let fence = try await fixture.snapshot(fixture.job("job-1")).fields["fence"]
            for _ in 0..<2 {
                let again = try await store.finish(first, as: .complete, resultJSON: "{}", stagesMs: [], then: request)
                guard case (.done, .job(let claim)?) = again else {
                    Issue.record("the next job is lost: \(again)")
                    return
                }
                #expect(claim.lease.job.text == "job-1" && claim.lease.fence == fence && claim.attempt == 1)
            }
            #expect(try await Self.size(fixture, "leases") == 1)
            #expect(try await Self.size(fixture, "ready") == 1)
            #expect(try await JobStanding.of(first.job, fixture).ends == ["COMPLETE"])
            #expect(try await fixture.findings() == [])
        }
    }

    // MARK: An older state

    /// What Redis had not on disk is gone (`appendfsync everysec`, a failover to a replica that lags): the job is given to another, and
    /// who had it before must not take that one's claim for its own.
    @Test func aRedisThatComesBackOlderGivesNoFenceTwice() async throws {
        try await StoreFixture.with { fixture in
            let store = fixture.store
            for number in 0..<2 { _ = try await fixture.submit("job-\(number)") }
            let before = try await fixture.claim().lease
            _ = try await fixture.redis.send(["SAVE"])
            let forgotten = try await fixture.claim().lease
            fixture.server.kill()
            try await Self.restart(fixture, [])
            let owner = try await fixture.claim(worker: "w2").lease
            #expect(owner.job == forgotten.job && owner.fence != forgotten.fence)
            #expect(try await store.heartbeat(forgotten) == .lost)
            #expect(try await store.advance(forgotten, write: 1, to: .generating(90)) == .lost)
            #expect(try await store.finish(forgotten, as: .complete, resultJSON: nil, stagesMs: []) == .lost)
            for lease in [before, owner] { #expect(try await store.heartbeat(lease) == .held) }
            #expect(try await fixture.snapshot(owner.job).fields["percent"] == "0.0")
        }
    }

    // MARK: At any moment

    @Test(arguments: 1...4) func whateverTheMomentEachNonceHasItsOwnJob(seed: Int) async throws {
        let (workers, claims) = (3, 8)
        try await Self.with(jobs: workers * claims) { fixture, _, _ in
            var random = SeededGenerator(seed)
            let given = try await withThrowingTaskGroup(of: [Claim].self) { group in
                for worker in 0..<workers {
                    group.addTask {
                        var given: [Claim] = []
                        try await Self.withStore(fixture, port: fixture.server.port) { store, _ in
                            for number in 0..<claims {
                                // Until it is answered, as a worker does.
                                let claim: Claim = try await eventually(within: .seconds(60), "an answer") {
                                    do {
                                        return try await Self.claim(store, "n-\(worker)-\(number)")
                                    } catch let error as StoreError where error.code == .unavailable {
                                        return nil
                                    }
                                }
                                given.append(claim)
                            }
                        }
                        return given
                    }
                }
                for _ in 0..<2 {
                    let enough = Int.random(in: 1..<workers * claims, using: &random)
                    try await eventually("some claims have run") { try await Self.size(fixture, "leases") ?? 0 >= enough }
                    fixture.server.kill()
                    try await Self.restart(fixture, [])
                }
                return try await group.reduce(into: []) { $0 += $1 }
            }
            #expect(Set(given.map(\.lease.job)).count == workers * claims, "seed \(seed): a job was given out twice")
            #expect(Set(given.map(\.lease.fence)).count == workers * claims, "seed \(seed): a fence was given out twice")
            #expect(given.allSatisfy { $0.attempt == 1 }, "seed \(seed)")
            #expect(try await Self.size(fixture, "leases") == workers * claims, "seed \(seed)")
            #expect(try await Self.size(fixture, "ready") == 0, "seed \(seed)")
            for claim in given { #expect(try await fixture.store.heartbeat(claim.lease) == .held, "seed \(seed)") }
            #expect(try await fixture.findings() == [], "seed \(seed)")
        }
    }
}
