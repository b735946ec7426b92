import ProgressCore
import RedisLink
import TestSupport
import Testing

@testable import JobStore

/// Learned durations on a real Redis: the script and the library must not come apart.
@Suite(.timeLimit(.minutes(3))) struct StatisticsTests {
    private static func lease(_ number: Int) -> Lease {
        var random = SeededGenerator(number)
        return Lease(job: JobID.make(unixMs: number, random: &random), queue: "gpu", fence: "e:\(number)", worker: "w1")
    }

    static func record(_ random: inout SeededGenerator, stages: Range<Int> = 0..<6) -> LearningRecord {
        var record = LearningRecord(worker: "w\(Int.random(in: 0..<3, using: &random))")
        func numbers(_ count: Int) -> [Double] {
            [1] + (1..<count).map { _ in Double.random(in: -5...5, using: &random) * (random.chance(5) ? 1e-7 : 1) }
        }
        for stage in stages where random.chance(80) {
            record.additions.append(.init(field: "s|stage \(stage)|a100|0", decay: 0.975, terms: .values(numbers(9))))
            record.additions.append(.init(field: "s|stage \(stage)|*|0", decay: 0.975, terms: .values(numbers(9))))
            record.additions.append(.init(field: "r|stage \(stage)", decay: 0.975, terms: .values(numbers(2))))
            record.additions.append(.init(field: "g|stage \(stage)", decay: 0.975, terms: .values(numbers(2))))
            let bin = Int.random(in: 0..<48, using: &random)
            record.additions.append(.init(field: "h|stage \(stage)", decay: 0.985, terms: .bin(bin, width: 48)))
            if random.chance(50) {
                record.additions.append(.init(field: "c|stage \(stage)", decay: 0.975, terms: .values(numbers(12))))
                record.additions.append(.init(field: "e|stage \(stage)", decay: 0.975, terms: .values(numbers(11))))
            }
        }
        if record.additions.isEmpty { record.additions.append(.init(field: "r|x", decay: 0.975, terms: .values([1, 2]))) }
        if random.chance(80) { record.workerError = .random(in: -1...1, using: &random) }
        for bucket in record.deviations.indices where random.chance(80) {
            record.deviations[bucket] = .random(in: -4...4, using: &random)
        }
        if random.chance(50) { record.route = StageRoute((0..<Int.random(in: 1...3, using: &random)).map { "stage \($0)" }) }
        return record
    }

    @Test func theScriptLearnsExactlyWhatTheLibraryLearns() async throws {
        try await StoreFixture.with { fixture in
            for seed in 0..<20 {
                var random = SeededGenerator(seed)
                var expected = LearnedStatistics()
                for number in 0..<15 {
                    let record = Self.record(&random)
                    expected.learn(record)
                    let outcome = try await fixture.store.learn(record, pipeline: "p\(seed)", lease: Self.lease(number))
                    #expect(outcome == .learned(jobs: number + 1))
                }
                let learned = try await fixture.store.statistics(pipeline: "p\(seed)")
                #expect(learned == expected, "seed \(seed)")
                #expect(learned.jobs == 15)
            }
        }
    }

    @Test func anEndTeachesOnce() async throws {
        try await StoreFixture.with { fixture in
            var random = SeededGenerator(1)
            let record = Self.record(&random)
            #expect(try await fixture.store.learn(record, pipeline: "p", lease: Self.lease(1)) == .learned(jobs: 1))
            let once = try await fixture.store.statistics(pipeline: "p")
            #expect(try await fixture.store.learn(record, pipeline: "p", lease: Self.lease(1)) == .repeated)
            #expect(try await fixture.store.statistics(pipeline: "p") == once)
            #expect(try await fixture.store.learn(record, pipeline: "p", lease: Self.lease(7)) == .learned(jobs: 2))
        }
    }

    @Test func whatWasTouchedLongestAgoGoes() async throws {
        try await StoreFixture.with { fixture in
            var random = SeededGenerator(3)
            var expected = LearnedStatistics()
            for number in 0..<60 {
                let record = Self.record(&random, stages: number * 12..<number * 12 + 12)
                expected.learn(record)
                _ = try await fixture.store.learn(record, pipeline: "wide", lease: Self.lease(number))
            }
            let learned = try await fixture.store.statistics(pipeline: "wide")
            #expect(learned == expected)
            let fields = try await fixture.redis.send(["HLEN", "headway:{stats:wide}:m"]).int ?? 0
            #expect(fields > 800 && fields <= ProgressLimits.statisticsFields + 5)
        }
    }

    @Test func statisticsAreReplacedForgottenAndListed() async throws {
        try await StoreFixture.with { fixture in
            var random = SeededGenerator(4)
            var statistics = LearnedStatistics()
            for _ in 0..<5 { statistics.learn(Self.record(&random)) }
            let store = fixture.store
            try await store.setStatistics(statistics, pipeline: "my pipe{}")
            #expect(try await store.statistics(pipeline: "my pipe{}") == statistics)
            #expect(try await store.statisticsPipelines() == ["my_pipe__"])
            let left = try await fixture.redis.send(["PTTL", "headway:{stats:my_pipe__}:m"]).int ?? 0
            #expect(left > 29 * 24 * 3_600_000)
            // And it goes on from there.
            let record = Self.record(&random)
            statistics.learn(record)
            #expect(try await store.learn(record, pipeline: "my pipe{}", lease: Self.lease(1)) == .learned(jobs: 6))
            #expect(try await store.statistics(pipeline: "my pipe{}") == statistics)
            try await store.forgetStatistics(pipeline: "my pipe{}")
            #expect(try await store.statistics(pipeline: "my pipe{}") == LearnedStatistics())
            #expect(try await store.statisticsPipelines().isEmpty)
            #expect(try await fixture.keyNames().filter { $0.contains("stats") }.isEmpty)
        }
    }

    @Test func anotherLayoutIsLeftAlone() async throws {
        try await StoreFixture.with { fixture in
            _ = try await fixture.redis.send(["HSET", "headway:{stats:p}:m", "v", "2", "jobs", "9"])
            var random = SeededGenerator(5)
            #expect(try await fixture.store.learn(Self.record(&random), pipeline: "p", lease: Self.lease(1)) == .otherVersion)
            #expect(try await fixture.redis.send(["HLEN", "headway:{stats:p}:m"]).int == 2)
            #expect(try await fixture.store.statistics(pipeline: "p") == LearnedStatistics())
        }
    }

    @Test func onlySoManyPipelinesAreKept() async throws {
        try await StoreFixture.with { fixture in
            for number in 0..<StoreLimits.statisticsPipelines {
                _ = try await fixture.redis.send(["ZADD", "headway:stats", .int(number), .string("old\(number)")])
            }
            _ = try await fixture.redis.send(["HSET", "headway:{stats:old0}:m", "v", "1", "jobs", "1"])
            var random = SeededGenerator(6)
            _ = try await fixture.store.learn(Self.record(&random), pipeline: "new", lease: Self.lease(1))
            let names = try await fixture.store.statisticsPipelines()
            #expect(names.count == StoreLimits.statisticsPipelines)
            #expect(names.first == "new" && !names.contains("old0"))
            #expect(try await fixture.redis.send(["EXISTS", "headway:{stats:old0}:m"]).int == 0)
        }
    }

    @Test func aTraceLivesAsLongAsItsJob() async throws {
        try await StoreFixture.with { fixture in
            let job = try await fixture.submit("j1", change: { $0.ttlMs = 60_000 })
            let claim = try await fixture.claim()
            _ = try await fixture.store.finish(claim.lease, as: .complete, resultJSON: nil, stagesMs: [])
            try await fixture.store.setTrace(job, json: "[1]")
            #expect(try await fixture.store.trace(job) == "[1]")
            let left = try await fixture.redis.send(["PTTL", "headway:{0}:trace:j1"]).int ?? 0
            #expect(left > 0 && left <= 60_000)
            let absent = try #require(JobID("absent"))
            try await fixture.store.setTrace(absent, json: "[1]")
            #expect(try await fixture.store.trace(absent) == nil)
            #expect(
                await storeError { try await fixture.store.setTrace(job, json: String(repeating: "x", count: 70_000)) }?.code == .invalid
            )
        }
    }
}
