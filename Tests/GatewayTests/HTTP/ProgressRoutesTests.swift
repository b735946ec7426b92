import JobStore
import NIOCore
import ProgressCore
import TestSupport
import Testing

@testable import Gateway

/// Progress over HTTP, on a real Redis.
@Suite(.timeLimit(.minutes(2))) struct ProgressRoutesTests {
    private static let opening = "{\"open\":{\"pipeline\":\"generic\",\"nonce\":\"n1\",\"producer\":\"celery@host\",\"params\":{\"a\": 1}}}"
    private static let path = "/v1/jobs/p/progress"

    private static func token(_ text: String) -> [(String, String)] { [("Headway-Write-Token", text)] }

    @Test func aProducerOpensReportsAndEnds() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            let opened = try await client.ask("POST", Self.path, json: Self.opening)
            let token = try #require(opened.member("token"))
            #expect(opened.status == 201 && opened.member("job") == "p" && opened.member("seq") == "1")
            #expect(opened.member("lease_ms") == "20000" && token.utf8.count == 32 && opened.header("location") == "/v1/jobs/p")
            let again = try await client.ask("POST", Self.path, json: Self.opening)
            #expect(again.status == 200 && again.member("token") == token)
            let other = try await client.ask("POST", Self.path, json: Self.opening.replacing("n1", with: "n2"))
            #expect(other.status == 409 && other.code == "conflict")

            let report =
                "{\"phase\":\"GENERATING\",\"percent\":40.04,\"stage\":\"sampling\",\"step\":2,\"steps\":5,\"message\":\"a\\nb\",\"eta_ms\":900,"
                + "\"percent_per_s\":1.5}"
            let moved = try await client.ask("POST", Self.path, json: report, headers: Self.token(token))
            #expect(moved.status == 200 && moved.member("seq") == "2" && moved.member("clamped") == "false")
            #expect(moved.member("cancel") == "null" && moved.member("lease_ms") == "20000")
            let sheet = try await client.ask("GET", "/v1/jobs/p")
            #expect(sheet.member("percent") == "40.0" && sheet.member("stage_percent") == "40.0" && sheet.member("message") == "a b")
            #expect(sheet.member("stage") == "sampling" && sheet.member("eta_ms") == "900" && sheet.member("worker") == "celery@host")
            #expect(!sheet.text.contains(token))

            // Only what changed; a lower percent is held; a name of the existing header works too.
            let back = try await client.ask("POST", Self.path, json: "{\"percent\":10}", headers: [("Headway-Fence", token)])
            #expect(back.member("clamped") == "true" && back.member("seq") == "3")
            #expect(try await client.ask("GET", "/v1/jobs/p").member("stage") == "sampling")
            let beat = try await client.ask("POST", Self.path, headers: Self.token(token))
            #expect(beat.status == 200 && beat.member("seq") == nil && beat.member("cancel") == "null")

            let log = "{\"log\":[\"one\",\"two\\u0007\"],\"write\":9}"
            #expect(try await client.ask("POST", Self.path, json: log, headers: Self.token(token)).status == 200)
            #expect(try await client.ask("GET", "/v1/jobs/p/logs").text.contains("\"stream\":\"producer\",\"text\":\"two \""))

            let end = "{\"phase\":\"COMPLETE\",\"percent\":100,\"result\":{ \"url\" :\n\"x \\\" y\" }}"
            let ended = try await client.ask("POST", Self.path, json: end, headers: Self.token(token))
            #expect(ended.status == 200 && ended.member("state", "phase") == "COMPLETE" && ended.member("state", "percent") == "100.0")
            #expect(ended.text.contains("\"result\":{\"url\":\"x \\\" y\"}"))
            // An end whose answer was lost may be sent again; anything else is too late.
            #expect(try await client.ask("POST", Self.path, json: end, headers: Self.token(token)).status == 200)
            let late = try await client.ask("POST", Self.path, json: "{\"percent\":1}", headers: Self.token(token))
            #expect(late.status == 409 && late.code == "lease_lost")
            #expect(try await client.ask("POST", Self.path, json: Self.opening).status == 409)
        }
    }

    @Test func theFirstReportMayComeWithTheOpening() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            let body = "{\"open\":{\"pipeline\":\"generic\",\"nonce\":\"n\"},\"phase\":\"ANALYZING\",\"percent\":5,\"log\":[\"hello\"]}"
            let opened = try await client.ask("POST", Self.path, json: body)
            let token = try #require(opened.member("token"))
            #expect(opened.status == 201 && opened.member("seq") == "2")
            #expect(try await client.ask("GET", "/v1/jobs/p").member("phase") == "ANALYZING")
            let moved = try await client.ask("POST", Self.path, json: "{\"percent\":50}", headers: Self.token(token))
            #expect(moved.member("seq") == "3")
            // Repeated late, it changes nothing: neither the bar nor the log.
            let again = try await client.ask("POST", Self.path, json: body)
            #expect(again.status == 200 && again.member("token") == token && again.member("seq") == "3")
            #expect(try await client.ask("GET", "/v1/jobs/p").member("percent") == "50.0")
            #expect(try await client.ask("GET", "/v1/jobs/p/logs").text.components(of: "hello") == 1)
        }
    }

    /// A cron job has no heartbeat: it says with each report when the next may come.
    @Test func aProducerMayAskForALongerLease() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            func left() async throws -> Int {
                let expiry = try await fixture.redis.cli("ZSCORE", "headway:{0}:queue:_:leases", "p")
                let now = try await fixture.redis.cli("TIME").split(whereSeparator: \.isWhitespace).first.flatMap { Int($0) } ?? 0
                return (Int(expiry.split(whereSeparator: \.isWhitespace).joined()) ?? 0) / 1000 - now
            }
            let opened = try await client.ask("POST", Self.path, json: Self.opening.dropLast() + ",\"lease_ms\":600000}")
            #expect(opened.member("lease_ms") == "600000")
            let token = try #require(opened.member("token"))
            #expect(try await left() > 500)
            let usual = try await client.ask("POST", Self.path, json: "{\"percent\":1}", headers: Self.token(token))
            #expect(usual.member("lease_ms") == "20000")
            #expect(try await left() <= 21)
            let beat = try await client.ask("POST", Self.path, json: "{\"lease_ms\":300000}", headers: Self.token(token))
            #expect(beat.status == 200 && beat.member("lease_ms") == "300000" && beat.member("seq") == nil)
            #expect(try await left() > 200)
        }
    }

    @Test func aProducerSaysForHowLongItsWorkIsSilent() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            let token = try #require(try await client.ask("POST", Self.path, json: Self.opening).member("token"))
            func ageAfter(_ report: String) async throws -> Int {
                #expect(try await client.ask("POST", Self.path, json: report, headers: Self.token(token)).status == 200)
                let why = try await client.ask("GET", "/v1/jobs/p/why").text
                let age = try #require(why.firstMatch(of: /"progress_age_ms":(\d+)/))
                return try #require(Int(age.output.1))
            }
            #expect(try await ageAfter("{\"phase\":\"GENERATING\",\"percent\":5}") < 600_000)
            #expect(try await ageAfter("{\"percent\":6,\"quiet_ms\":3600000}") >= 3_600_000)
            #expect(try await ageAfter("{\"percent\":7}") < 600_000)
        }
    }

    @Test func repeatedWriteNumbersChangeNothing() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            let token = try #require(try await client.ask("POST", Self.path, json: Self.opening).member("token"))
            let body = "{\"write\":7,\"phase\":\"GENERATING\",\"percent\":20}"
            #expect(try await client.ask("POST", Self.path, json: body, headers: Self.token(token)).member("seq") == "2")
            #expect(try await client.ask("POST", Self.path, json: body, headers: Self.token(token)).member("seq") == "2")
            let older = "{\"write\":6,\"phase\":\"GENERATING\",\"percent\":30}"
            #expect(try await client.ask("POST", Self.path, json: older, headers: Self.token(token)).member("seq") == "2")
            #expect(try await client.ask("GET", "/v1/jobs/p").member("percent") == "20.0")
        }
    }

    @Test func failuresAndCancelsEndTheJob() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            let token = try #require(try await client.ask("POST", Self.path, json: Self.opening).member("token"))
            let failed = try await client.ask(
                "POST",
                Self.path,
                json: "{\"phase\":\"FAILED\",\"error\":{\"code\":\"oom\",\"message\":\"out of memory\",\"recoverable\":true}}",
                headers: Self.token(token)
            )
            // A producer has one attempt: nobody would start the next.
            #expect(failed.status == 200 && failed.member("state", "phase") == "FAILED" && failed.member("state", "error", "code") == "oom")

            let path = "/v1/jobs/q/progress"
            let second = try #require(try await client.ask("POST", path, json: Self.opening).member("token"))
            #expect(try await client.ask("POST", "/v1/jobs/q/cancel", json: "{\"reason\":\"enough\"}").member("outcome") == "requested")
            let told = try await client.ask("POST", path, json: "{\"percent\":3}", headers: Self.token(second))
            #expect(told.member("cancel", "by") == "anonymous" && told.member("cancel", "reason") == "enough")
            #expect(try await client.ask("POST", path, headers: Self.token(second)).member("cancel", "reason") == "enough")
            let acknowledged = try await client.ask("POST", path, json: "{\"phase\":\"CANCELLED\"}", headers: Self.token(second))
            #expect(acknowledged.member("state", "phase") == "CANCELLED" && acknowledged.member("state", "cancel", "reason") == "enough")
        }
    }

    /// A worker's fence is a write token like any other.
    @Test func aLeaseHolderMayReportOverHTTP() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            _ = try await fixture.submit("p")
            let lease = try await fixture.claim()
            let moved = try await client.ask(
                "POST",
                Self.path,
                json: "{\"phase\":\"GENERATING\",\"percent\":12}",
                headers: Self.token(lease.fence)
            )
            #expect(moved.status == 200 && moved.member("seq") == "2")
            let failed = try await client.ask(
                "POST",
                Self.path,
                json: "{\"phase\":\"FAILED\",\"error\":{\"code\":\"flaky\",\"recoverable\":true}}",
                headers: Self.token(lease.fence)
            )
            #expect(failed.member("state", "phase") == "QUEUED" && failed.member("state", "attempt") == "2")
            #expect(try await client.ask("POST", Self.path, headers: Self.token(lease.fence)).code == "lease_lost")
        }
    }

    @Test func withoutTheTokenNothingIsTold() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            _ = try await client.ask("POST", Self.path, json: Self.opening)
            for token in ["x", String(repeating: "0", count: 32), String(repeating: "x", count: 4000)] {
                for body in ["{\"percent\":1}", "{\"phase\":\"COMPLETE\"}", "{\"log\":[\"a\"]}", ""] {
                    let here = try await Self.send(client, Self.path, body, token)
                    let absent = try await Self.send(client, "/v1/jobs/absent/progress", body, token)
                    #expect(here.status == 409 && here.code == "lease_lost" && absent.status == 409 && absent.code == "lease_lost")
                }
            }
            #expect(try await client.ask("POST", Self.path, json: "{\"percent\":1}").code == "not_allowed")
            #expect(try await client.ask("POST", Self.path).code == "not_allowed")
            #expect(try await fixture.snapshot("p").seq == 1)
        }
    }

    private static func send(_ client: RawClient, _ path: String, _ body: String, _ token: String) async throws -> RawClient.Response {
        if body.isEmpty { return try await client.ask("POST", path, headers: Self.token(token)) }
        return try await client.ask("POST", path, json: body, headers: Self.token(token))
    }

    @Test func badReportsAreRefusedByName() async throws {
        let change = Change<GatewayConfiguration> { $0.limits.reportsBurst = 10_000 }
        try await GatewayFixture.with(change) { fixture in
            let client = try await fixture.connect()
            let token = try #require(try await client.ask("POST", Self.path, json: Self.opening).member("token"))
            for test in Self.badReports {
                let answer = try await client.ask("POST", Self.path, json: test.json, headers: Self.token(token))
                #expect(
                    answer.code == test.code && answer.member("error", "field") == test.field,
                    "\(test.json.prefix(80)): \(answer.text)"
                )
                #expect((400..<500).contains(answer.status))
            }
            #expect(try await fixture.snapshot("p").seq == 1)
            // What only Redis can tell.
            _ = try await client.ask("POST", Self.path, json: "{\"phase\":\"POST_PROCESSING\"}", headers: Self.token(token))
            let back = try await client.ask("POST", Self.path, json: "{\"phase\":\"GENERATING\"}", headers: Self.token(token))
            #expect(back.status == 422 && back.code == "invalid_value" && back.member("error", "field") == "phase")
            let form = try await client.ask("POST", Self.path, headers: Self.token(token), body: Array("percent=1".utf8))
            #expect(form.code == "unsupported_media_type")
        }
    }

    private struct BadReport {
        let json: String
        let code: String
        let field: String?
    }

    private static var badReports: [BadReport] {
        var cases: [BadReport] = []
        for name in ["percent", "phase_percent", "stage_percent"] {
            for value in ["-0.1", "100.1", "1e400"] {
                cases.append(BadReport(json: "{\"\(name)\":\(value)}", code: "invalid_value", field: name))
            }
            cases.append(BadReport(json: "{\"\(name)\":\"5\"}", code: "wrong_type", field: name))
        }
        for name in ["step", "steps", "item", "items", "eta_ms", "eta_low_ms", "eta_high_ms", "quiet_ms", "write"] {
            for value in ["-1", "1.5", "99999999999999999999", "1e3"] {
                cases.append(BadReport(json: "{\"\(name)\":\(value)}", code: "invalid_value", field: name))
            }
            cases.append(BadReport(json: "{\"\(name)\":true}", code: "wrong_type", field: name))
        }
        cases += [
            ("{\"write\":0}", "invalid_value", "write"), ("{\"lease_ms\":999}", "invalid_value", "lease_ms"),
            ("{\"lease_ms\":600001}", "invalid_value", "lease_ms"), ("{\"phase\":\"DONE\"}", "invalid_value", "phase"),
            ("{\"phase\":4}", "wrong_type", "phase"), ("{\"stage\":1}", "wrong_type", "stage"),
            ("{\"message\":[]}", "wrong_type", "message"),
            ("{\"stalled\":1}", "wrong_type", "stalled"), ("{\"percent_per_s\":-1}", "invalid_value", "percent_per_s"),
            ("{\"percentage\":1}", "unknown_field", "percentage"), ("{\"percent\":1,\"percent\":2}", "invalid_value", "percent"),
            ("{\"log\":\"x\"}", "wrong_type", "log"), ("{\"log\":[1]}", "wrong_type", "log[0]"),
            ("{\"log\":[\(Array(repeating: "\"x\"", count: 101).joined(separator: ","))]}", "invalid_value", "log"),
            ("{\"result\":{}}", "invalid_value", "result"), ("{\"phase\":\"COMPLETE\",\"result\":[]}", "wrong_type", "result"),
            (
                "{\"phase\":\"COMPLETE\",\"result\":{\"a\":\"\(String(repeating: "x", count: StoreLimits.resultBytes))\"}}",
                "body_too_large",
                "result"
            ),
            ("{\"error\":{\"code\":\"a\"}}", "invalid_value", "error"), ("{\"phase\":\"FAILED\"}", "missing_field", "error"),
            ("{\"phase\":\"FAILED\",\"error\":\"x\"}", "wrong_type", "error"),
            ("{\"phase\":\"FAILED\",\"error\":{}}", "missing_field", "error.code"),
            ("{\"phase\":\"FAILED\",\"error\":{\"code\":\"A b\"}}", "invalid_value", "error.code"),
            ("{\"phase\":\"FAILED\",\"error\":{\"code\":\"a\",\"message\":1}}", "wrong_type", "error.message"),
            ("{\"phase\":\"FAILED\",\"error\":{\"code\":\"a\",\"x\":1}}", "unknown_field", "error.x"),
            ("{\"phase\":\"COMPLETE\",\"error\":{\"code\":\"a\"}}", "invalid_value", "error"),
            ("{\"open\":{\"pipeline\":\"generic\",\"nonce\":\"n1\"}}", "invalid_value", "open"), ("[]", "wrong_type", nil),
            ("{", "malformed_json", nil),
        ].map { BadReport(json: $0.0, code: $0.1, field: $0.2) }
        return cases
    }

    @Test func badOpeningsAreRefusedByName() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            let cases: [(json: String, code: String, field: String?)] = [
                ("{\"open\":1}", "wrong_type", "open"), ("{\"open\":{}}", "missing_field", "open.pipeline"),
                ("{\"open\":{\"pipeline\":\"generic\"}}", "missing_field", "open.nonce"),
                ("{\"open\":{\"pipeline\":\"nope\",\"nonce\":\"n\"}}", "unknown_pipeline", "pipeline"),
                ("{\"open\":{\"pipeline\":\"generic\",\"nonce\":\"\"}}", "invalid_value", "open.nonce"),
                ("{\"open\":{\"pipeline\":\"generic\",\"nonce\":\"n\",\"queue\":\"gpu\"}}", "unknown_field", "open.queue"),
                ("{\"open\":{\"pipeline\":\"generic\",\"nonce\":\"n\",\"params\":[]}}", "wrong_type", "open.params"),
                ("{\"open\":{\"pipeline\":\"generic\",\"nonce\":\"n\",\"ttl_ms\":0}}", "invalid_value", "open.ttl_ms"),
                ("{\"open\":{\"pipeline\":\"generic\",\"nonce\":\"n\"},\"phase\":\"COMPLETE\"}", "invalid_value", "phase"),
            ]
            for test in cases {
                let answer = try await client.ask("POST", Self.path, json: test.json)
                #expect(answer.code == test.code && answer.member("error", "field") == test.field, "\(test.json): \(answer.text)")
            }
            #expect(try await client.ask("POST", "/v1/jobs/p~1/progress", json: Self.opening).status == 422)
            #expect(try await client.ask("GET", "/v1/jobs/p").status == 404)
        }
    }

    @Test func aProducerThatReportsTooOftenIsSlowedDown() async throws {
        let change = Change<GatewayConfiguration> {
            $0.limits.reportsBurst = 5
            $0.limits.reportsPerSecond = 0.001
        }
        try await GatewayFixture.with(change) { fixture in
            let client = try await fixture.connect()
            let token = try #require(try await client.ask("POST", Self.path, json: Self.opening).member("token"))
            let other = try #require(try await client.ask("POST", "/v1/jobs/q/progress", json: Self.opening).member("token"))
            for _ in 0..<5 { #expect(try await client.ask("POST", Self.path, headers: Self.token(token)).status == 200) }
            let refused = try await client.ask("POST", Self.path, json: "{\"percent\":1}", headers: Self.token(token))
            #expect(refused.status == 429 && refused.code == "too_many_requests" && refused.header("retry-after") != nil)
            // Neither another producer, nor somebody with a wrong token, shares its allowance.
            #expect(try await client.ask("POST", "/v1/jobs/q/progress", headers: Self.token(other)).status == 200)
            #expect(try await client.ask("POST", Self.path, headers: Self.token("x")).status == 409)
            #expect(try await fixture.snapshot("p").seq == 1)
        }
    }

    /// The gateway ends what a lost producer left behind.
    @Test func aLostProducerFailsItsJob() async throws {
        try await GatewayFixture.with { fixture in
            _ = try await fixture.ask("POST", Self.path, json: Self.opening)
            // The lease has run out.
            try await fixture.redis.cli("ZADD", "headway:{0}:queue:_:leases", "1", "p")
            try await eventually(within: .seconds(30), "the end of the job") {
                try await fixture.snapshot("p").fields["error"]?.contains("producer_lost") == true
            }
            #expect(try await fixture.snapshot("p").phase == .failed)
        }
    }
}

extension String {
    fileprivate func components(of needle: String) -> Int { ranges(of: needle).count }
}
