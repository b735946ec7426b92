import JobStore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// Thousands of random commands of several workers, some of them dead or stale, against a real Redis; what was published is
/// then held against the invariants. A failing seed is printed and replays.
@Suite(.timeLimit(.minutes(5))) struct SimulationTests {
    @Test(arguments: [1, 2, 3] as [UInt64])
    func randomWorkersKeepTheInvariants(seed: UInt64) async throws {
        var settings = StoreFixture.quickSettings
        settings.lease = .milliseconds(40)
        try await StoreFixture.with(settings: settings) { fixture in
            let jobs = try (0..<20).map { try fixture.job("job-\($0)") }
            try await EventRecorder.listening(fixture, to: jobs) { recorder in
                try await Self.play(fixture, jobs, seed: seed)
                for job in jobs {
                    let end = try await fixture.snapshot(job)
                    expectTruthful(try await recorder.events(job, upTo: end.seq), end, "seed \(seed), \(job)")
                }
            }
            for part in ["ready", "delayed", "leases", "deadlines"] {
                #expect(
                    try await fixture.redis.send(["ZCARD", .string("headway:{0}:queue:gpu:\(part)")]).int == 0,
                    "seed \(seed): \(part)"
                )
            }
        }
    }

    /// Plays until every job has ended.
    private static func play(_ fixture: StoreFixture, _ jobs: [JobID], seed: UInt64) async throws {
        let store = fixture.store
        var random = SeededGenerator(seed: seed)
        var leases: [(lease: Lease, write: Int, percent: Double)] = []
        var unsubmitted = jobs
        let error = JobError(code: "generator_failed", message: "x", isRecoverable: true)
        for step in 0... {
            if step % 50 == 0 {
                var live = unsubmitted.count
                for head in try await store.heads(jobs) where head.map({ !$0.phase.isTerminal }) ?? false { live += 1 }
                if live == 0 { return }
                try #require(step < 100_000, "seed \(seed): jobs do not end")
            }
            // The further it goes, the fewer accidents: it must end.
            let calm = step > 3000
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<10:
                guard let job = unsubmitted.popLast() else { continue }
                let attempts = Int.random(in: 1...4, using: &random)
                _ = try await fixture.submit(job.text) { $0.maxAttempts = attempts }
            case 10..<25:
                if case .job(let claim) = try await store.claim(queue: "gpu", worker: "w\(step)", nonce: "\(seed)-\(step)") {
                    leases.append((claim.lease, 0, 0))
                }
            case 25..<75:
                guard let index = leases.indices.randomElement(using: &random) else { continue }
                leases[index].write += 1
                leases[index].percent += Double.random(in: -5...20, using: &random)
                let percent = min(100, max(0, leases[index].percent))
                let phase: Phase = percent < 10 ? .analyzing : percent < 80 ? .generating : .postProcessing
                _ = try? await store.advance(
                    leases[index].lease,
                    write: leases[index].write,
                    to: ProgressState(phase: phase, phasePercent: percent, percent: percent, stage: "s\(Int(percent) / 20)")
                )
            case 75..<85:
                guard let index = leases.indices.randomElement(using: &random) else { continue }
                let lease = leases[index].lease
                switch Int.random(in: 0..<(calm ? 1 : 4), using: &random) {
                case 0: _ = try await store.finish(lease, as: .complete, resultJSON: "{}", stagesMs: [])
                case 1: _ = try await store.fail(lease, error: error, stagesMs: [])
                case 2: _ = try await store.release(lease)
                default: _ = try await store.heartbeat(lease)
                }
                // Now and then the owner does not notice and goes on: a stale writer.
                if Bool.random(using: &random) { leases.remove(at: index) }
            case 85..<88 where !calm:
                guard let job = jobs.randomElement(using: &random) else { continue }
                _ = try await store.cancel(job, by: "fate", reason: nil)
            case 88..<92 where !calm:
                if let index = leases.indices.randomElement(using: &random) { leases.remove(at: index) }
            default:
                _ = try await store.reap(queue: "gpu")
                if calm {
                    _ = try await fixture.redis.send([
                        "ZADD", "headway:{0}:queue:gpu:delayed", "XX", "1", .string(jobs[step % jobs.count].text),
                    ])
                }
            }
        }
    }
}
