import JobStore
import NIOCore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// A worker that dies between any two of its commands: what was accepted is run again or ends, and nothing is torn.
@Suite(.timeLimit(.minutes(5))) struct CutPointTests {
    /// The commands of one job's worker, in order.
    private static let script: [@Sendable (JobStore, Lease) async throws -> Void] = [
        { store, lease in _ = try await store.advance(lease, write: 1, to: ProgressState(phase: .analyzing, percent: 1, stage: "load")) },
        { store, lease in _ = try await store.heartbeat(lease) },
        { store, lease in _ = try await store.advance(lease, write: 2, to: .generating(40)) },
        { store, lease in _ = try await store.appendLog(lease, write: nil, [LogLine(stream: "stderr", text: "x")], droppedBefore: 0) },
        { store, lease in _ = try await store.setPreview(lease, image: ByteBuffer(bytes: [0xff, 0xd8, 0xff]), contentType: "image/jpeg") },
        { store, lease in
            _ = try await store.advance(lease, write: 3, to: ProgressState(phase: .postProcessing, percent: 90, stage: "export"))
        },
        { store, lease in _ = try await store.finish(lease, as: .complete, resultJSON: "{}", stagesMs: []) },
    ]

    @Test(arguments: 0...script.count)
    func aWorkerThatDiesAfterAnyCommandLosesNothing(cut: Int) async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let job = try await fixture.submit("a")
            let lease = try await fixture.claim(worker: "victim").lease
            for command in Self.script.prefix(cut) { try await command(fixture.store, lease) }
            if cut < Self.script.count {
                let atDeath = try await fixture.snapshot(job)
                #expect(!atDeath.phase.isTerminal)
                try await fixture.reap(until: job, "attempt 2") { $0.fields["attempt"] == "2" }
                let heir = try await fixture.claim(worker: "heir")
                #expect(heir.attempt == 2)
                for command in Self.script { try await command(fixture.store, heir.lease) }
                for command in Self.script { try? await command(fixture.store, lease) }
            }
            try await expectOneCleanEnd(fixture, job, attempts: cut < Self.script.count ? 2 : 1)
        }
    }

    private func expectOneCleanEnd(_ fixture: StoreFixture, _ job: JobID, attempts: Int) async throws {
        let snapshot = try await fixture.snapshot(job)
        #expect(snapshot.phase == .complete)
        let milestones = try await fixture.store.milestones(job, after: 0)
        #expect(milestones.filter(\.phase.isTerminal).count == 1)
        #expect(milestones.last?.phase == .complete && milestones.last?.seq == snapshot.seq)
        #expect(milestones.filter { $0.phase == .queued }.count == attempts)
        for part in ["ready", "delayed", "leases", "deadlines"] {
            #expect(try await fixture.redis.send(["ZCARD", .string("headway:{0}:queue:gpu:\(part)")]).int == 0, "\(part) holds a leftover")
        }
        #expect(try await fixture.redis.send(["XLEN", "headway:{0}:ended"]).int == 1)
    }
}
