import JobStore
import NIOCore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// Progress-only jobs, and partial reports.
@Suite(.timeLimit(.minutes(5))) struct ProducerTests {
    private func open(_ fixture: StoreFixture, _ id: String, nonce: String = "n1", owner: Owner = .anonymous) async throws -> Lease {
        let job = ProducerSubmission(id: try fixture.job(id), pipeline: "training", owner: owner, nonce: nonce, producer: "trainer@gpu1")
        return try await fixture.store.open(job).lease
    }

    private func report(_ change: (inout ProgressReport) -> Void) -> ProgressReport {
        var report = ProgressReport()
        change(&report)
        return report
    }

    @Test func aProducerOpensReportsAndEnds() async throws {
        try await StoreFixture.with { fixture in
            let lease = try await open(fixture, "t")
            #expect(lease.fence.count == 32)
            #expect(try await fixture.snapshot(lease.job).phase == .queued)
            _ = try await fixture.store.report(
                lease,
                write: 1,
                report {
                    $0.phase = .generating
                    $0.percent = 40
                    $0.stage = "epoch"
                    $0.step = 4
                    $0.steps = 10
                    $0.message = "loss 0.3"
                }
            )
            var fields = try await fixture.snapshot(lease.job).fields
            #expect(fields["percent"] == "40.0" && fields["stage"] == "epoch" && fields["stage_percent"] == "40.0")
            // Only the percent: the rest stays.
            _ = try await fixture.store.report(lease, write: 2, report { $0.percent = 50 })
            fields = try await fixture.snapshot(lease.job).fields
            #expect(fields["percent"] == "50.0" && fields["stage"] == "epoch" && fields["message"] == "loss 0.3")
            // Another stage: what was said of the old one is no longer true.
            _ = try await fixture.store.report(lease, write: 3, report { $0.stage = "evaluation" })
            fields = try await fixture.snapshot(lease.job).fields
            #expect(fields["stage"] == "evaluation" && fields["step"] == nil && fields["message"] == nil && fields["percent"] == "50.0")
            // Backwards is held, a repeated write changes nothing.
            #expect(
                try await fixture.store.report(lease, write: 4, report { $0.percent = 10 })
                    == .accepted(seq: 5, wasClamped: true, cancel: nil)
            )
            #expect(
                try await fixture.store.report(lease, write: 4, report { $0.percent = 90 })
                    == .accepted(seq: 5, wasClamped: false, cancel: nil)
            )
            #expect(try await fixture.store.finish(lease, as: .complete, resultJSON: "{\"loss\":0.1}", stagesMs: []) == .done)
            let snapshot = try await fixture.snapshot(lease.job)
            #expect(snapshot.phase == .complete && snapshot.fields["percent"] == "100.0")
            #expect(try await fixture.store.report(lease, write: 5, report { $0.percent = 1 }) == .lost)
        }
    }

    @Test func openingAgainWithTheNonceGivesTheSameToken() async throws {
        try await StoreFixture.with { fixture in
            let first = try await open(fixture, "t")
            #expect(try await open(fixture, "t").fence == first.fence)
            #expect(await storeError { try await open(fixture, "t", nonce: "n2") }?.code == .conflict)
            #expect(await storeError { try await open(fixture, "t", owner: Owner("other")) }?.code == .conflict)
            #expect(await storeError { try await open(fixture, "t~1") }?.code == .invalid)
            _ = try await fixture.submit("taken")
            #expect(await storeError { try await open(fixture, "taken") }?.code == .conflict)
        }
    }

    @Test func aLostProducerFailsItsJob() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let lease = try await open(fixture, "t")
            _ = try await fixture.store.report(lease, write: nil, report { $0.percent = 12 })
            try await eventually("the end") {
                _ = try await fixture.store.reap(queue: Keys.heldQueue)
                return try await fixture.snapshot(lease.job).phase == .failed
            }
            #expect(try await fixture.snapshot(lease.job).fields["error"]?.contains("producer_lost") == true)
            #expect(try await fixture.store.report(lease, write: nil, report { $0.percent = 13 }) == .lost)
        }
    }

    @Test func aCancelThatIsIgnoredIsForced() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let lease = try await open(fixture, "t")
            #expect(try await fixture.store.cancel(lease.job, by: "me", reason: "enough") == .requested(first: true))
            var percent = 1.0
            try await eventually("the end, reports or not") {
                percent += 0.1
                let outcome = try await fixture.store.report(lease, write: nil, report { $0.percent = percent })
                if case .accepted(_, _, let cancel) = outcome { #expect(cancel?.by == "me") }
                _ = try await fixture.store.reap(queue: Keys.heldQueue)
                return try await fixture.snapshot(lease.job).phase == .cancelled
            }
        }
    }

    @Test func noQueueGivesAProgressOnlyJobOut() async throws {
        try await StoreFixture.with { fixture in
            _ = try await open(fixture, "t")
            guard case .empty = try await fixture.store.claim(queue: Keys.heldQueue, worker: "w", nonce: "n") else {
                Issue.record("a progress-only job was claimed")
                return
            }
            let lease = try await open(fixture, "t")
            #expect(await storeError { try await fixture.store.release(lease) }?.code == .invalid)
            #expect(await storeError { try await fixture.submit("x", queue: Keys.heldQueue) }?.code == .invalid)
        }
    }

    /// Whatever is reported in whatever order, the stored state stays legal.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func randomReportsKeepTheRules(seed: UInt64) async throws {
        try await StoreFixture.with { fixture in
            var random = SeededGenerator(seed: seed)
            let lease = try await open(fixture, "t")
            var percent = 0.0
            var rank = 0
            for write in 1...400 {
                var next = ProgressReport()
                if Bool.random(using: &random) { next.percent = Double.random(in: -20...140, using: &random) }
                if Int.random(in: 0..<8, using: &random) == 0 {
                    next.phase = [.queued, .analyzing, .generating, .postProcessing, .complete].randomElement(using: &random)
                }
                if Bool.random(using: &random) { next.stage = ["a", "b", ""].randomElement(using: &random) }
                if Bool.random(using: &random) { next.step = Int.random(in: -3...30, using: &random) }
                if Bool.random(using: &random) { next.steps = Int.random(in: 0...30, using: &random) }
                if Bool.random(using: &random) { next.percentPerSecond = Double.random(in: -1...2, using: &random) }
                if let error = await storeError({ try await fixture.store.report(lease, write: write, next) }) {
                    let isBackwards = next.phase.map { $0.rank < rank || $0.isTerminal } ?? false
                    #expect(error.code == .invalid && isBackwards, "seed \(seed): \(error)")
                }
                let fields = try await fixture.snapshot(lease.job).fields
                let now = try #require(Double(fields["percent"] ?? ""))
                let phase = try #require(Phase(rawValue: fields["phase"] ?? "none"))
                #expect(now >= percent && now < 100 && phase.rank >= rank, "seed \(seed), write \(write)")
                if let stage = Double(fields["stage_percent"] ?? "0") { #expect((0...100).contains(stage)) }
                (percent, rank) = (now, phase.rank)
            }
        }
    }
}
