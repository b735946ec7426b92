import JobStore
import NIOCore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// Groups: children J~n of a job J, and the aggregate bar.
@Suite(.timeLimit(.minutes(5))) struct GroupTests {
    private func group(_ fixture: StoreFixture, _ id: String, children: Int) async throws -> JobID {
        try await fixture.submit(id) { $0.children = children }
    }

    private func child(_ fixture: StoreFixture, of group: JobID, change: (inout JobSubmission) -> Void = { _ in }) async throws -> JobID {
        var submission = JobSubmission(id: group, queue: "gpu", pipeline: "relief", owner: .anonymous, paramsJSON: "{}")
        submission.childOf = group
        change(&submission)
        return try await fixture.store.submit(submission).head.job
    }

    @Test func aGroupOfFinishedChildrenIsComplete() async throws {
        try await StoreFixture.with { fixture in
            let group = try await group(fixture, "g", children: 3)
            var snapshot = try await fixture.snapshot(group)
            #expect(snapshot.phase == .queued)
            #expect(snapshot.body.contains("\"children\":{\"expected\":3,\"waiting\":0,"))
            for number in 1...3 { #expect(try await child(fixture, of: group).text == "g~\(number)") }
            #expect(try await fixture.snapshot(group).body.contains("\"waiting\":3"))
            for number in 1...3 {
                let claim = try await fixture.claim()
                snapshot = try await fixture.snapshot(group)
                #expect(snapshot.phase == .generating)
                #expect(snapshot.body.contains("\"running\":1"))
                _ = try await fixture.store.finish(claim.lease, as: .complete, resultJSON: nil, stagesMs: [])
                snapshot = try await fixture.snapshot(group)
                if number < 3 {
                    #expect(snapshot.fields["percent"] == (number == 1 ? "33.3" : "66.6"))
                    #expect(snapshot.fields["estimating"] == "1", "one has not begun: nobody knows when it ends")
                }
            }
            #expect(snapshot.phase == .complete)
            #expect(snapshot.fields["percent"] == "100.0")
            #expect(snapshot.body.contains("\"type\":\"complete\""))
            let milestones = try await fixture.store.milestones(group, after: 0)
            #expect(milestones.map(\.phase) == [.queued, .generating, .complete])
        }
    }

    @Test func theBarIsTheMeanAndTheEndIsTheSlowest() async throws {
        try await StoreFixture.with { fixture in
            let group = try await group(fixture, "g", children: 2)
            _ = try await child(fixture, of: group)
            _ = try await child(fixture, of: group)
            let leases = [try await fixture.claim().lease, try await fixture.claim().lease]
            var state = ProgressState.generating(20)
            state.etaMs = 5_000
            _ = try await fixture.store.advance(leases[0], write: 1, to: state)
            state = .generating(60)
            state.etaMs = 60_000
            var write = 1
            try await eventually("the bar of both") {
                write += 1
                _ = try await fixture.store.advance(leases[1], write: write, to: state)
                return try await fixture.snapshot(group).fields["percent"] == "40.0"
            }
            let eta = Int(try await fixture.snapshot(group).fields["eta_ms"] ?? "") ?? 0
            #expect(eta > 50_000 && eta <= 60_000)
        }
    }

    @Test func theBarNeverFallsWhenAChildStartsAgain() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let group = try await group(fixture, "g", children: 1)
            let child = try await child(fixture, of: group)
            let lease = try await fixture.claim().lease
            _ = try await fixture.store.advance(lease, write: 1, to: .generating(80))
            try await fixture.reap(until: child, "the next attempt") { $0.fields["attempt"] == "2" }
            let held = Double(try await fixture.snapshot(group).fields["percent"] ?? "") ?? 0
            let again = try await fixture.claim().lease
            _ = try await fixture.store.advance(again, write: 1, to: .generating(10))
            let percent = Double(try await fixture.snapshot(group).fields["percent"] ?? "") ?? 0
            #expect(percent >= held)
            _ = try await fixture.store.finish(again, as: .complete, resultJSON: nil, stagesMs: [])
            #expect(try await fixture.snapshot(group).phase == .complete)
        }
    }

    @Test func failedChildrenFailTheGroupWhenAllHaveEnded() async throws {
        try await StoreFixture.with { fixture in
            let group = try await group(fixture, "g", children: 2)
            _ = try await child(fixture, of: group)
            _ = try await child(fixture, of: group)
            let error = JobError(code: "x", message: "y", isRecoverable: false)
            _ = try await fixture.store.fail(try await fixture.claim().lease, error: error, stagesMs: [])
            #expect(try await fixture.snapshot(group).phase == .generating)
            _ = try await fixture.store.finish(try await fixture.claim().lease, as: .complete, resultJSON: nil, stagesMs: [])
            let snapshot = try await fixture.snapshot(group)
            #expect(snapshot.phase == .failed)
            #expect(snapshot.fields["error"]?.contains("1 of 2 children failed") == true)
        }
    }

    @Test func cancellingAGroupCancelsItsChildren() async throws {
        try await StoreFixture.with { fixture in
            let group = try await group(fixture, "g", children: 5)
            for _ in 0..<3 { _ = try await child(fixture, of: group) }
            let lease = try await fixture.claim().lease
            #expect(try await fixture.store.cancel(group, by: "me", reason: "enough") == .requested(first: true))
            #expect(try await fixture.snapshot(try fixture.job("g~2")).phase == .cancelled)
            #expect(try await fixture.store.heartbeat(lease) == .cancelRequested(CancelRequest(by: "me", reason: "enough")))
            #expect(try await fixture.snapshot(group).phase == .generating, "one still runs")
            let refused = await storeError { try await child(fixture, of: group) }
            #expect(refused?.code == .conflict)
            _ = try await fixture.store.finish(lease, as: .cancelled, resultJSON: nil, stagesMs: [])
            #expect(try await fixture.snapshot(group).phase == .cancelled)
            #expect(try await fixture.store.cancel(group, by: "me", reason: nil) == .alreadyEnded(.cancelled))
        }
    }

    @Test func cancellingAnEmptyOrWaitingGroupEndsItAtOnce() async throws {
        try await StoreFixture.with { fixture in
            let empty = try await group(fixture, "e", children: 5)
            #expect(try await fixture.store.cancel(empty, by: "me", reason: nil) == .cancelled)
            let waiting = try await group(fixture, "w", children: 2)
            _ = try await child(fixture, of: waiting)
            #expect(try await fixture.store.cancel(waiting, by: "me", reason: nil) == .cancelled)
            for id in [empty, waiting] { #expect(try await fixture.snapshot(id).phase == .cancelled) }
        }
    }

    @Test func badChildrenAreRefusedByName() async throws {
        try await StoreFixture.with { fixture in
            let group = try await group(fixture, "g", children: 1)
            var error = await storeError { try await child(fixture, of: try fixture.job("nobody")) }
            #expect(error?.code == .unknownGroup)
            error = await storeError { try await child(fixture, of: group) { $0.owner = Owner("somebody-else") } }
            #expect(error?.code == .unknownGroup, "a group of others does not show itself")
            _ = try await child(fixture, of: group)
            error = await storeError { try await child(fixture, of: group) }
            #expect(error?.code == .conflict)
            error = await storeError { try await fixture.submit("plain~1") }
            #expect(error?.code == .unknownGroup)
            error = await storeError { try await fixture.submit("too-many") { $0.children = 1_000_000 } }
            #expect(error?.code == .invalid)
        }
    }

    @Test func aNumberedChildMayBeSubmittedAgain() async throws {
        try await StoreFixture.with { fixture in
            let group = try await group(fixture, "g", children: 3)
            _ = try await fixture.submit("g~2")
            let again = try await fixture.store.submit(
                JobSubmission(id: try fixture.job("g~2"), queue: "gpu", pipeline: "relief", owner: .anonymous, paramsJSON: "{}")
            )
            #expect(!again.isNew)
            #expect(try await child(fixture, of: group).text == "g~3")
            #expect(try await child(fixture, of: group).text == "g~1")
            #expect(await storeError { try await fixture.submit("g~4") }?.code == .conflict)
        }
    }

    @Test func aGroupWhoseChildrenNeverComeExpires() async throws {
        try await StoreFixture.with(settings: StoreFixture.quickSettings) { fixture in
            let group = try await fixture.submit("g") {
                $0.children = 2
                $0.expiresAtMs = 1
            }
            try await eventually("the end") {
                _ = try await fixture.store.reap(queue: Keys.heldQueue)
                return try await fixture.snapshot(group).phase == .failed
            }
            #expect(try await fixture.snapshot(group).fields["error"]?.contains("expired") == true)
        }
    }
}
