import JobStore
import NIOCore
import ProgressCore
import TestSupport
import Testing

@testable import Gateway

/// Jobs over HTTP, on a real Redis.
@Suite(.timeLimit(.minutes(5))) struct JobRoutesTests {
    private static let body = "{\"queue\":\"gpu\",\"pipeline\":\"relief\",\"params\":{\"n\": 1.0}}"

    @Test func aSubmitIsAcceptedOnceAndAnsweredTwice() async throws {
        try await GatewayFixture.with { fixture in
            let body =
                "{\"queue\":\"gpu\",\"pipeline\":\"relief\",\"id\":\"mine\",\"params\":{ \"n\": 1.0, \"t\":\"\\u00e9\" },\"priority\":7}"
            let first = try await fixture.ask("POST", "/v1/jobs", json: body)
            #expect(first.status == 202 && first.header("location") == "/v1/jobs/mine")
            #expect(
                first.text.hasPrefix("{\"job\":\"mine\",\"state\":{\"job\":\"mine\",\"seq\":1,\"type\":\"phase\",\"phase\":\"QUEUED\",")
            )
            let second = try await fixture.ask("POST", "/v1/jobs", json: body)
            #expect(second.status == 200 && second.body == first.body)
            let snapshot = try await fixture.snapshot("mine")
            // The parameters are the very bytes that were sent.
            #expect(snapshot.fields["params"] == "{ \"n\": 1.0, \"t\":\"\\u00e9\" }" && snapshot.fields["priority"] == "7")
            let other = try await fixture.ask("POST", "/v1/jobs", json: body.replacing("1.0", with: "2.0"))
            #expect(other.status == 409 && other.code == "conflict")
        }
    }

    @Test func idsAreMadeWhenNoneIsGiven() async throws {
        try await GatewayFixture.with { fixture in
            var seen: Set<String> = []
            for _ in 0..<20 {
                let location = try #require(try await fixture.ask("POST", "/v1/jobs", json: Self.body).header("location"))
                #expect(location.utf8.count == "/v1/jobs/".utf8.count + 36 && seen.insert(location).inserted)
            }
        }
    }

    @Test func oneKeyIsOneJob() async throws {
        try await GatewayFixture.with { fixture in
            let keyed = Self.body.replacing("}}", with: "},\"idempotency_key\":\"order 7\"}")
            let answers = try await withThrowingTaskGroup(of: RawClient.Response.self) { group in
                for _ in 0..<8 { group.addTask { try await fixture.ask("POST", "/v1/jobs", json: keyed) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(answers.map(\.status).sorted() == [200, 200, 200, 200, 200, 200, 200, 202])
            #expect(Set(answers.map { $0.header("location") ?? "" }).count == 1)
            #expect(answers[0].header("location")?.hasPrefix("/v1/jobs/k-") == true)
            let changed = try await fixture.ask("POST", "/v1/jobs", json: keyed.replacing("1.0", with: "2.0"))
            #expect(changed.status == 409)
            let job = try #require(answers[0].header("location")?.split(separator: "/").last.map(String.init))
            try await fixture.redis.cli("DEL", "headway:{0}:job:\(job)")
            #expect(try await fixture.ask("POST", "/v1/jobs", json: keyed).code == "gone")
        }
    }

    @Test func whatDoesNotExistIsNamed() async throws {
        try await GatewayFixture.with { fixture in
            let queue = try await fixture.ask("POST", "/v1/jobs", json: "{\"queue\":\"cpu\",\"pipeline\":\"relief\"}")
            #expect(queue.status == 404 && queue.code == "unknown_queue" && queue.text.contains("gpu"))
            let pipeline = try await fixture.ask("POST", "/v1/jobs", json: "{\"queue\":\"gpu\",\"pipeline\":\"nope\"}")
            #expect(pipeline.status == 404 && pipeline.code == "unknown_pipeline" && pipeline.text.contains("relief, generic"))
            let input = "{\"queue\":\"gpu\",\"pipeline\":\"relief\",\"params\":{\"inputs\":[{\"upload\":\"nope\",\"name\":\"a\"}]}}"
            let upload = try await fixture.ask("POST", "/v1/jobs", json: input)
            #expect(upload.status == 404 && upload.code == "upload_not_found" && upload.text.contains("params.inputs[0]"))
            // A queue is known as soon as it is registered, however recently it was asked for.
            try await fixture.store.registerQueues(["cpu"])
            try await eventually("the new queue") {
                try await fixture.ask("POST", "/v1/jobs", json: "{\"queue\":\"cpu\",\"pipeline\":\"relief\"}").status == 202
            }
            for type in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
                let answer = try await fixture.ask("POST", "/v1/jobs", headers: [("Content-Type", type)], body: Array(Self.body.utf8))
                #expect(answer.status == 415 && answer.code == "unsupported_media_type")
            }
            let charset = [("Content-Type", "application/json; charset=utf-8")]
            #expect(try await fixture.ask("POST", "/v1/jobs", headers: charset, body: Array(Self.body.utf8)).status == 202)
        }
    }

    @Test func anyQueueIsTakenWhenConfigured() async throws {
        let change = Change<GatewayConfiguration> {
            $0.allowAnyQueue = true
            $0.limits.queues = 2
            $0.limits.queueListRetry = .zero
        }
        try await GatewayFixture.with(change) { fixture in
            let store = fixture.store
            let before = try await store.queueNames()
            let rest = 2 - before.count
            for number in 0..<5 {
                let answer = try await fixture.ask("POST", "/v1/jobs", json: "{\"queue\":\"new\(number)\",\"pipeline\":\"generic\"}")
                #expect(answer.status == (number < rest ? 202 : 404), "queue \(number)")
            }
            // So that it is looked after.
            #expect(try await store.queueNames() == before.union((0..<rest).map { "new\($0)" }))
        }
    }

    @Test func theSheetCarriesTheEventUntouched() async throws {
        try await GatewayFixture.with { fixture in
            for number in 0..<3 { _ = try await fixture.submit("before\(number)") }
            let job = try await fixture.submit("j", params: "{\"a\":[1,2]}")
            let short = try await fixture.ask("GET", "/v1/jobs/j")
            let event = try #require(try await fixture.store.snapshot(job)).body
            #expect(short.text.hasPrefix(event.dropLast() + ",\"queue\":\"gpu\",\"pipeline\":\"relief\","))
            #expect(short.text.contains("\"queue_ahead\":3") && !short.text.contains("\"params\""))
            #expect(throws: Never.self) { try CheckedJSON(short.body, maximumDepth: 9) }
            let full = try await fixture.ask("GET", "/v1/jobs/j?full=1")
            #expect(full.text.contains("\"params\":{\"a\":[1,2]}") && full.header("etag") != short.header("etag"))
            for _ in 0..<3 { _ = try await fixture.claim() }
            let lease = try await fixture.claim()
            #expect(lease.job == job)
            _ = try await fixture.store.finish(
                lease,
                as: .complete,
                resultJSON: "{\"x\":1,\"params\":{\"b\":2},\"error\":null}",
                stagesMs: [("a", 5)]
            )
            let done = try await fixture.ask("GET", "/v1/jobs/j?full=1")
            #expect(done.text.contains("\"params\":{\"a\":[1,2]}"), "a result's own member must not hide the job's: \(done.text)")
            var names: [String] = []
            try CheckedJSON(done.body, maximumDepth: 9).root.forEachMember { name, _ in names.append(name) }
            #expect(Set(names).count == names.count, "a member stands there twice: \(names)")
            #expect(names.contains("result") && names.contains("finished_at") && !names.contains("queue_ahead"))
        }
    }

    /// A tenant at its limit: its job has no place in the line, and the sheet says so.
    @Test func aHeldJobHasNoPlaceInTheLine() async throws {
        try await GatewayFixture.with { fixture in
            try await fixture.store.configure(queue: "gpu", [.tenantMaxRunning(1)])
            _ = try await fixture.submit("first")
            let lease = try await fixture.claim()
            for id in ["second", "third"] { _ = try await fixture.submit(id) }
            let client = try await fixture.connect()
            let second = try await client.ask("GET", "/v1/jobs/second")
            let third = try await client.ask("GET", "/v1/jobs/third")
            #expect(second.member("held_by") == "tenant_limit" && second.member("own_ahead") == "0" && second.member("queue_ahead") == nil)
            #expect(third.member("own_ahead") == "1" && third.member("queue_position") == nil)
            let tag = try #require(third.header("etag"))
            _ = try await fixture.store.finish(lease, as: .complete, resultJSON: nil, stagesMs: [])
            let moved = try await client.ask("GET", "/v1/jobs/third", headers: [("If-None-Match", tag)])
            #expect(moved.status == 200 && moved.member("own_ahead") == "0")
            #expect(try await client.ask("GET", "/v1/jobs/second").member("queue_position") == "0")
        }
    }

    /// A waiting job says until when, or why nobody knows; in the sheet and in the answer of a long-poll.
    @Test func aWaitingJobSaysForHowLong() async throws {
        try await GatewayFixture.with { fixture in
            _ = try await fixture.submit("first")
            let client = try await fixture.connect()
            let later = "{\"id\":\"second\",\"queue\":\"gpu\",\"pipeline\":\"relief\",\"params\":{},\"delay_ms\":3600000}"
            #expect(try await client.ask("POST", "/v1/jobs", json: later).status == 202)
            let first = try await client.ask("GET", "/v1/jobs/first")
            #expect(first.member("queue_position") == "0" && first.member("reason") == "no_worker" && first.member("eta_ms") == nil)
            let second = try await client.ask("GET", "/v1/jobs/second")
            #expect(second.member("reason") == "not_due" && second.member("due_at") != nil && second.member("queue_position") == nil)
            let polled = try await client.ask("GET", "/v1/jobs/first?after=0&wait_ms=100")
            #expect(polled.text.contains("\"queue_ahead\":0,\"reason\":\"no_worker\"}"), "\(polled.text)")
            _ = try await fixture.store.registerWorker(
                WorkerRecord(id: "w", host: "h", pid: 1, version: "1", queues: ["gpu"], pipeline: "relief", concurrency: 1)
            )
            try await eventually(within: .seconds(60), "a wait") {
                try await client.ask("GET", "/v1/jobs/first").member("eta_ms") == "0"
            }
            try await fixture.store.configure(queue: "gpu", [.paused(true)])
            try await eventually(within: .seconds(60), "a pause") {
                try await client.ask("GET", "/v1/jobs/first").member("reason") == "paused"
            }
        }
    }

    @Test func whyTellsTheOwnerAndNobodyElse() async throws {
        try await GatewayFixture.with { fixture in
            _ = try await fixture.submit("mine")
            _ = try await fixture.submit("theirs", owner: Owner("acme/bob"))
            let client = try await fixture.connect()
            let why = try await client.ask("GET", "/v1/jobs/mine/why")
            #expect(why.status == 200 && why.member("phase") == "QUEUED" && why.member("queue") == "gpu")
            #expect(why.text.contains("\"code\":\"no_worker\""))
            #expect(try await client.ask("GET", "/v1/jobs/theirs/why").code == "job_not_found")
            #expect(try await client.ask("GET", "/v1/jobs/absent/why").code == "job_not_found")
        }
    }

    @Test func aTagSavesTheBodyUntilSomethingChanges() async throws {
        try await GatewayFixture.with { fixture in
            let first = try await fixture.submit("first")
            _ = try await fixture.submit("second")
            let client = try await fixture.connect()
            let tag = try #require(try await client.ask("GET", "/v1/jobs/second").header("etag"))
            for value in [tag, "W/\(tag)", "\"x\", \(tag)", "*"] {
                let answer = try await client.ask("GET", "/v1/jobs/second", headers: [("If-None-Match", value)])
                #expect(answer.status == 304 && answer.body.isEmpty && answer.header("etag") == tag, "\(value)")
            }
            #expect(try await client.ask("GET", "/v1/jobs/second", headers: [("If-None-Match", "\"1-2\"")]).status == 200)
            // The place in line is part of what is shown.
            _ = try await fixture.store.cancel(first, by: "test", reason: nil)
            #expect(try await client.ask("GET", "/v1/jobs/second", headers: [("If-None-Match", tag)]).text.contains("\"queue_ahead\":0"))
            let lease = try await fixture.claim()
            let running = try #require(try await client.ask("GET", "/v1/jobs/second").header("etag"))
            _ = try await fixture.store.advance(lease, write: 1, to: ProgressState(phase: .generating, percent: 50))
            #expect(try await client.ask("GET", "/v1/jobs/second", headers: [("If-None-Match", running)]).status == 200)
            // A failover may count the same number again for another change, never at the same time.
            let now = try #require(try await client.ask("GET", "/v1/jobs/second").header("etag"))
            try await fixture.redis.cli("HSET", "headway:{0}:job:second", "updated_at", "123")
            #expect(try await client.ask("GET", "/v1/jobs/second", headers: [("If-None-Match", now)]).status == 200)
        }
    }

    @Test func whatIsNotThereOrNotYoursLooksTheSame() async throws {
        try await GatewayFixture.with { fixture in
            _ = try await fixture.submit("theirs", owner: Owner("acme/bob"), params: "{\"secret\":1}")
            let client = try await fixture.connect()
            for (method, tail) in [
                ("GET", ""), ("GET", "?full=1"), ("POST", "/cancel"), ("GET", "/logs"), ("GET", "/preview"), ("GET", "/files/a"),
                ("GET", "/why"), ("POST", "/retry"),
                ("GET", "?after=0&wait_ms=0"), ("HEAD", ""),
            ] {
                let theirs = try await client.ask(method, "/v1/jobs/theirs\(tail)")
                let absent = try await client.ask(method, "/v1/jobs/absent\(tail)")
                #expect(theirs.status == 404 && absent.status == 404, "\(method) \(tail)")
                func anonymous(_ answer: RawClient.Response, _ id: String) -> String {
                    answer.text.replacing(id, with: "ID").replacing(answer.header("x-request-id") ?? "", with: "R")
                }
                #expect(anonymous(theirs, "theirs") == anonymous(absent, "absent"), "\(method) \(tail)")
            }
            #expect(try await fixture.snapshot("theirs").phase == .queued)
            for id in ["a~b", "a%20b", "%00", "", "~1", String(repeating: "a", count: 129), "a%2Fb", "%7B0%7D"] {
                let answer = try await client.ask("GET", "/v1/jobs/\(id)")
                #expect(answer.status == 400 && answer.code == "bad_request", "\(id)")
            }
        }
    }

    @Test func cancellingSaysWhatHappened() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            _ = try await fixture.submit("waiting")
            let waiting = try await client.ask("POST", "/v1/jobs/waiting/cancel", json: "{\"reason\":\"changed my mind\"}")
            #expect(waiting.text == "{\"job\":\"waiting\",\"outcome\":\"cancelled\"}")
            let ended = try await client.ask("POST", "/v1/jobs/waiting/cancel")
            #expect(ended.text == "{\"job\":\"waiting\",\"outcome\":\"already_ended\",\"phase\":\"CANCELLED\"}")
            _ = try await fixture.submit("running")
            let lease = try await fixture.claim()
            #expect(try await client.ask("POST", "/v1/jobs/running/cancel").text.contains("\"outcome\":\"requested\",\"first\":true"))
            #expect(try await client.ask("POST", "/v1/jobs/running/cancel", json: "{}").text.contains("\"first\":false"))
            guard case .cancelRequested(let request) = try await fixture.store.heartbeat(lease) else {
                Issue.record("the worker was not told")
                return
            }
            #expect(request.by == "anonymous")
            for (json, code) in [
                ("[]", "wrong_type"), ("{", "malformed_json"), ("{\"reason\":1}", "wrong_type"), ("{\"why\":\"x\"}", "unknown_field"),
                ("{\"reason\":\"\(String(repeating: "x", count: 513))\"}", "invalid_value"),
            ] { #expect(try await client.ask("POST", "/v1/jobs/running/cancel", json: json).code == code, "\(json.prefix(40))") }
        }
    }

    @Test func sideChannelsAreRead() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            _ = try await fixture.submit("j")
            let lease = try await fixture.claim()
            #expect(try await client.ask("GET", "/v1/jobs/j/logs").text == "{\"job\":\"j\",\"lines\":[]}")
            let lines = (0..<5).map { LogLine(stream: "stderr", text: "line \($0) \"\u{1}\u{2028}</script>") }
            _ = try await fixture.store.appendLog(lease, write: nil, lines, droppedBefore: 0)
            let logs = try await client.ask("GET", "/v1/jobs/j/logs?limit=2")
            var texts: [String] = []
            try CheckedJSON(logs.body, maximumDepth: 9).root.forEachMember { name, value in
                guard name == "lines" else { return }
                value.forEachElement { _, line in
                    line.forEachMember { name, value in if name == "text" { texts.append(value.string ?? "") } }
                }
            }
            #expect(texts == ["line 3 \"\u{1}\u{2028}</script>", "line 4 \"\u{1}\u{2028}</script>"])
            for limit in ["0", "1001", "x", "-1", ""] {
                #expect(try await client.ask("GET", "/v1/jobs/j/logs?limit=\(limit)").status == 400)
            }
            #expect(try await client.ask("GET", "/v1/jobs/j/preview").code == "file_not_found")
            let png = ByteBuffer(bytes: [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 1, 2, 3])
            _ = try await fixture.store.setPreview(lease, image: png, contentType: "image/png")
            let preview = try await client.ask("GET", "/v1/jobs/j/preview")
            #expect(preview.body == Array(png.readableBytesView) && preview.header("content-type") == "image/png")
        }
    }

    @Test func aLongPollWaitsForNews() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            _ = try await fixture.submit("j")
            let first = try await client.ask("GET", "/v1/jobs/j?after=0&wait_ms=5000")
            #expect(first.status == 200 && first.text.hasPrefix("{\"state\":{\"job\":\"j\",\"seq\":1,"))
            let waiting = try await fixture.connect()
            await waiting.request("GET", "/v1/jobs/j?after=1&wait_ms=20000")
            let lease = try await fixture.claim()
            _ = try await fixture.store.advance(lease, write: 1, to: ProgressState(phase: .generating, percent: 20, stage: "a"))
            let news = try await waiting.response()
            #expect(news.status == 200 && news.text.contains("\"events\":[{\"job\":\"j\",\"seq\":2"))
            #expect(try await client.ask("GET", "/v1/jobs/j?after=9000&wait_ms=30").status == 200)
            #expect(try await client.ask("GET", "/v1/jobs/gone?after=3&wait_ms=0").code == "gone")
            #expect(try await client.ask("GET", "/v1/jobs/gone?after=0&wait_ms=30").code == "job_not_found")
            for query in ["after=-1", "after=x", "wait_ms=30001", "wait_ms=", "after=99999999999999999999"] {
                #expect(try await client.ask("GET", "/v1/jobs/j?\(query)").status == 400, "\(query)")
            }
        }
    }

    /// Redis gone: told at once and with when to come back, and everything works again by itself.
    @Test func withoutRedisItSaysSo() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            _ = try await fixture.submit("j")
            fixture.redis.kill()
            for (method, path) in [("GET", "/v1/jobs/j"), ("GET", "/v1/queues"), ("POST", "/v1/jobs/j/cancel"), ("GET", "/v1/workers")] {
                let answer = try await client.ask(method, path)
                #expect(answer.status == 503 && answer.code == "unavailable" && answer.header("retry-after") == "2", "\(method) \(path)")
            }
            #expect(try await client.ask("POST", "/v1/jobs", json: Self.body).status == 503)
            #expect(try await client.ask("GET", "/livez").status == 200)
            try await eventually("the verdict") { try await client.ask("GET", "/readyz").text.contains("degraded") }
            #expect(try await client.ask("GET", "/readyz").status == 200)
            try await fixture.redis.start()
            try await eventually("Redis's return") { try await client.ask("GET", "/v1/queues").status == 200 }
            try await eventually("the canary") { try await client.ask("GET", "/readyz").text.contains("\"ready\"") }
        }
    }
}
