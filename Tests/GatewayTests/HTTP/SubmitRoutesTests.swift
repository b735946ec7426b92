import JobStore
import NIOCore
import ProgressCore
import TestSupport
import Testing

@testable import Gateway

/// Groups, children and retries over HTTP, on a real Redis.
@Suite(.timeLimit(.minutes(2))) struct SubmitRoutesTests {
    private static func child(_ members: String) -> String {
        "{\"queue\":\"gpu\",\"pipeline\":\"relief\",\"parent\":\"book\"\(members)}"
    }

    @Test func childrenGetTheirNumbersAndTheGroupCounts() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            let early = try await client.ask("POST", "/v1/jobs", json: Self.child(""))
            #expect(early.status == 404 && early.code == "group_not_found")
            let group = try await client.ask("POST", "/v1/jobs", json: "{\"children\":3,\"id\":\"book\",\"params\":{\"title\":\"x\"}}")
            #expect(group.status == 202 && group.member("job") == "book")
            #expect(group.member("state", "children", "expected") == "3" && group.member("state", "phase") == "QUEUED")
            #expect(
                try await client.ask("POST", "/v1/jobs", json: "{\"children\":3,\"id\":\"book\",\"params\":{\"title\":\"x\"}}").status
                    == 200
            )

            let named = try await client.ask("POST", "/v1/jobs", json: Self.child(",\"id\":\"book~2\""))
            #expect(named.status == 202 && named.member("job") == "book~2" && named.header("location") == "/v1/jobs/book~2")
            #expect(try await client.ask("POST", "/v1/jobs", json: Self.child(",\"id\":\"book~2\"")).status == 200)
            // A number that is taken is passed over.
            let numbers = [
                try await client.ask("POST", "/v1/jobs", json: Self.child("")).member("job"),
                try await client.ask("POST", "/v1/jobs", json: Self.child("")).member("job"),
            ]
            #expect(Set(numbers) == ["book~1", "book~3"] || Set(numbers) == ["book~3", "book~4"], "\(numbers)")
            let full = try await client.ask("POST", "/v1/jobs", json: Self.child(""))
            #expect(full.status == 409 && full.code == "conflict" && full.text.contains("3"))
            let sheet = try await client.ask("GET", "/v1/jobs/book")
            #expect(sheet.member("children", "waiting") == "3" && sheet.member("pipeline") == "group" && sheet.member("queue_ahead") == nil)

            let lease = try await fixture.claim()
            _ = try await fixture.store.finish(lease, as: .complete, resultJSON: nil, stagesMs: [])
            let moved = try await client.ask("GET", "/v1/jobs/book")
            #expect(moved.member("children", "complete") == "1" && moved.member("phase") == "GENERATING")
            #expect(try await client.ask("POST", "/v1/jobs/book/cancel", json: "{}").member("outcome") == "cancelled")
            #expect(try await client.ask("POST", "/v1/jobs", json: Self.child("")).status == 409)
            #expect(try await client.ask("GET", "/v1/jobs/book").member("phase") == "CANCELLED")
        }
    }

    @Test func anotherOwnersGroupTakesNoChildren() async throws {
        try await GatewayFixture.with { fixture in
            let group = try #require(JobID("book"))
            var submission = JobSubmission(id: group, queue: "", pipeline: "group", owner: Owner("acme/bob"), paramsJSON: "{}")
            submission.children = 2
            _ = try await fixture.store.submit(submission)
            #expect(try await fixture.ask("POST", "/v1/jobs", json: Self.child("")).code == "group_not_found")
            #expect(try await fixture.ask("POST", "/v1/jobs", json: Self.child(",\"id\":\"book~1\"")).code == "group_not_found")
        }
    }

    @Test func limitsAreToldWithWhenToComeBack() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            let body = "{\"queue\":\"gpu\",\"pipeline\":\"relief\"}"
            try await fixture.store.configure(queue: "gpu", [.maxDepth(1)])
            #expect(try await client.ask("POST", "/v1/jobs", json: body).status == 202)
            let full = try await client.ask("POST", "/v1/jobs", json: body)
            #expect(full.status == 429 && full.code == "queue_full" && full.header("retry-after") != nil)
            try await fixture.store.configure(queue: "gpu", [.maxDepth(nil), .tenantMaxQueued(1)])
            let mine = try await client.ask("POST", "/v1/jobs", json: body)
            #expect(mine.status == 429 && mine.code == "queue_full" && mine.header("retry-after") != nil)
            try await fixture.store.configure(queue: "gpu", [.tenantMaxQueued(nil), .draining(true)])
            let draining = try await client.ask("POST", "/v1/jobs", json: body)
            #expect(draining.status == 503 && draining.code == "queue_draining" && draining.header("retry-after") != nil)
        }
    }

    @Test func thePreferredLabelReachesTheJob() async throws {
        try await GatewayFixture.with { fixture in
            let answer = try await fixture.ask(
                "POST",
                "/v1/jobs",
                json: "{\"queue\":\"gpu\",\"pipeline\":\"relief\",\"id\":\"j\",\"prefer\":\"sdxl\"}"
            )
            #expect(answer.status == 202)
            #expect(try await fixture.snapshot("j").fields["prefer"] == "sdxl")
        }
    }

    // MARK: Retry

    private static func fail(_ fixture: GatewayFixture, _ id: String, params: String = "{\"n\":1}") async throws {
        _ = try await fixture.submit(id, params: params)
        let lease = try await fixture.claim()
        let error = JobError(code: "generator_failed", message: "no", isRecoverable: false)
        #expect(try await fixture.store.fail(lease, error: error, stagesMs: []) == .dead)
    }

    @Test func aRetryIsANewJobOnce() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            try await Self.fail(fixture, "old")
            let first = try await client.ask("POST", "/v1/jobs/old/retry")
            let successor = try #require(first.member("job"))
            #expect(first.status == 201 && first.member("retry_of") == "old" && first.member("state", "phase") == "QUEUED")
            #expect(first.header("location") == "/v1/jobs/\(successor)")
            let second = try await client.ask("POST", "/v1/jobs/old/retry", json: "{}")
            #expect(second.status == 200 && second.member("job") == successor && second.member("retry_of") == "old")
            #expect(try await client.ask("GET", "/v1/jobs/old").member("retried_as") == successor)
            let sheet = try await client.ask("GET", "/v1/jobs/\(successor)?full=1")
            #expect(sheet.member("retry_of") == "old" && sheet.member("params") == "{\"n\":1}" && sheet.member("attempt") == "1")
            #expect(try await fixture.store.deadLetters(queue: "gpu", limit: 10).isEmpty)
        }
    }

    @Test func aRetryMayChangeTheParams() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            try await Self.fail(fixture, "old")
            let lost = "{\"params\":{\"inputs\":[{\"upload\":\"gone\",\"name\":\"a.png\"}]}}"
            let missing = try await client.ask("POST", "/v1/jobs/old/retry", json: lost)
            #expect(missing.status == 404 && missing.code == "upload_not_found" && missing.text.contains("params.inputs[0]"))
            let cases: [(json: String, code: String, field: String)] = [
                ("{\"params\":[]}", "wrong_type", "params"), ("{\"param\":{}}", "unknown_field", "param"),
                ("{\"params\":{\"a\":1,\"a\":2}}", "invalid_value", "params.a"),
                ("{\"params\":{},\"params\":{}}", "invalid_value", "params"),
                ("{\"params\":{\"inputs\":[{\"upload\":\"a\",\"name\":\"../b\"}]}}", "invalid_name", "params.inputs[0]"),
                ("{\"params\":{\"a\":\"\(String(repeating: "x", count: StoreLimits.paramsBytes))\"}}", "body_too_large", "params"),
            ]
            for test in cases {
                let answer = try await client.ask("POST", "/v1/jobs/old/retry", json: test.json)
                #expect(
                    answer.code == test.code && answer.member("error", "field") == test.field,
                    "\(test.json.prefix(60)): \(answer.text)"
                )
            }
            #expect(try await client.ask("POST", "/v1/jobs/old/retry", json: "{").code == "malformed_json")
            // Nothing of all that was noted.
            #expect(try await fixture.snapshot("old").fields["retried_as"] == nil)
            let changed = try await client.ask("POST", "/v1/jobs/old/retry", json: "{\"params\":{ \"n\" : 2 }}")
            let successor = try #require(changed.member("job"))
            #expect(changed.status == 201)
            #expect(try await fixture.snapshot(successor).fields["params"] == "{ \"n\" : 2 }")
        }
    }

    @Test func whatCannotBeTriedAgainSaysWhy() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            _ = try await fixture.submit("waiting")
            let waiting = try await client.ask("POST", "/v1/jobs/waiting/retry")
            #expect(waiting.status == 409 && waiting.code == "conflict" && waiting.text.contains("QUEUED"))
            #expect(try await fixture.snapshot("waiting").fields["retried_as"] == nil)
            _ = try await fixture.submit("theirs", owner: Owner("acme/bob"))
            #expect(try await client.ask("POST", "/v1/jobs/theirs/retry").code == "job_not_found")
            #expect(try await client.ask("POST", "/v1/jobs/absent/retry").code == "job_not_found")
            _ = try await client.ask("POST", "/v1/jobs", json: "{\"children\":1,\"id\":\"group\"}")
            _ = try await client.ask("POST", "/v1/jobs/group/cancel")
            #expect(try await client.ask("POST", "/v1/jobs/group/retry").status == 409)
            let open = "{\"open\":{\"pipeline\":\"generic\",\"nonce\":\"n\"}}"
            let token = try #require(try await client.ask("POST", "/v1/jobs/produced/progress", json: open).member("token"))
            let end = [("Headway-Write-Token", token)]
            #expect(
                try await client.ask("POST", "/v1/jobs/produced/progress", json: "{\"phase\":\"COMPLETE\"}", headers: end).status == 200
            )
            #expect(try await client.ask("POST", "/v1/jobs/produced/retry").status == 409)
            #expect(try await fixture.snapshot("produced").fields["retried_as"] == nil)
        }
    }

    /// The same call works when the queue takes jobs again.
    @Test func aRetryThatTheQueueRefusesIsNotLost() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            try await Self.fail(fixture, "old")
            try await fixture.store.configure(queue: "gpu", [.draining(true)])
            #expect(try await client.ask("POST", "/v1/jobs/old/retry").code == "queue_draining")
            try await fixture.store.configure(queue: "gpu", [.draining(false)])
            #expect(try await client.ask("POST", "/v1/jobs/old/retry").status == 201)
        }
    }
}
