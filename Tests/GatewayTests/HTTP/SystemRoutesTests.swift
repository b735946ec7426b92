import JobStore
import NIOCore
import ProgressCore
import Telemetry
import TestSupport
import Testing
import WebSocketWire

@testable import Gateway

/// Lists, pages, health, and the two ways of leaving HTTP.
@Suite(.timeLimit(.minutes(5))) struct SystemRoutesTests {
    @Test func listsAreReadOnceForManyWhoAsk() async throws {
        let change = Change<GatewayConfiguration> { $0.limits.listAge = .seconds(3600) }
        try await GatewayFixture.with(change) { fixture in
            let first = try await fixture.ask("GET", "/v1/queues").text
            _ = try await fixture.submit("j")
            #expect(try await fixture.ask("GET", "/v1/queues").text == first)
        }
    }

    @Test func listsForDashboards() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            for number in 0..<3 { _ = try await fixture.submit("j\(number)") }
            _ = try await fixture.claim()
            try await fixture.store.configure(queue: "gpu", [.tenantMaxRunning(4)])
            #expect(
                try await client.ask("GET", "/v1/queues").text
                    == """
                    {"queues":[{"name":"gpu","ready":2,"delayed":0,"parked":0,"running":1,"dead":0,"paused":false,"draining":false,\
                    "tenant_max_running":4}]}
                    """
            )
            #expect(try await client.ask("GET", "/v1/workers").text == "{\"workers\":[]}")
            var record = WorkerRecord(
                id: "w\"1",
                host: "h",
                pid: 7,
                version: "1",
                queues: ["gpu"],
                pipeline: "relief",
                concurrency: 2,
                jobs: ["j0"],
                startedAtMs: 5
            )
            record.labels = ["sdxl"]
            record.gpus = [WorkerRecord.GPU(name: "NVIDIA H200", memoryMB: 143_771)]
            try await fixture.store.registerWorker(record)
            let workers = try await client.ask("GET", "/v1/workers")
            #expect(throws: Never.self) { try CheckedJSON(workers.body, maximumDepth: 9) }
            #expect(
                workers.text.hasPrefix(
                    "{\"workers\":[{\"id\":\"w\\\"1\",\"host\":\"h\",\"version\":\"1\",\"queues\":[\"gpu\"],\"labels\":[\"sdxl\"],"
                        + "\"pipeline\":\"relief\",\"concurrency\":2,\"gpus\":[{\"name\":\"NVIDIA H200\",\"memory_mb\":143771}],"
                        + "\"jobs\":[\"j0\"],\"finished\":0,\"failed\":0,\"draining\":false,\"started_at\":"
                ),
                "\(workers.text)"
            )
            let pipelines = try await client.ask("GET", "/v1/pipelines")
            #expect(
                pipelines.text
                    == "{\"pipelines\":[{\"name\":\"relief\",\"stages\":[{\"name\":\"shape_generation\",\"phase\":\"GENERATING\","
                    + "\"weight\":0.75,\"expected_ms\":1000},{\"name\":\"mesh_export\",\"phase\":\"POST_PROCESSING\",\"weight\":0.25}]},"
                    + "{\"name\":\"generic\",\"stages\":[]}]}"
            )
        }
    }

    @Test func thePageAndItsFiles() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            let page = try await client.ask("GET", "/")
            #expect(page.status == 200 && page.header("content-type")?.hasPrefix("text/html") == true && page.text.contains("<html"))
            let policy = try #require(page.header("content-security-policy"))
            #expect(policy.hasPrefix("default-src 'self'") && policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"))
            #expect(page.header("cache-control") == "no-cache")
            let tag = try #require(page.header("etag"))
            #expect(try await client.ask("GET", "/", headers: [("If-None-Match", tag)]).status == 304)
            #expect(try await client.ask("GET", "/", headers: [("If-None-Match", "\"x\"")]).status == 200)
            // Everything the page names is there.
            for piece in page.text.split(separator: "\"") where piece.hasPrefix("/") && piece.contains(".") {
                #expect(try await client.ask("GET", String(piece)).status == 200, "\(piece)")
            }
            for path in ["/index.html", "/../etc/passwd", "/app.js/", "/%2e%2e/x"] {
                #expect(try await client.ask("GET", path).status == 404)
            }
        }
    }

    @Test func healthAndMetrics() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            // A platform's probe names us by whatever address it knows.
            #expect(try await client.ask("GET", "/livez", headers: [("Host", "10.1.2.3:8080")]).text == "live\n")
            #expect(try await client.ask("GET", "/readyz", headers: [("Host", "10.1.2.3:8080")]).text == "{\"status\":\"ready\"}\n")
            try await eventually("the canary") { fixture.registry.exposition().contains("headway_gateway_link_healthy 1\n") }
            let metrics = try await client.ask("GET", "/metrics")
            #expect(metrics.header("content-type") == "text/plain; version=0.0.4; charset=utf-8")
            #expect(metrics.text.contains("headway_gateway_requests_total{route=\"GET /livez\",class=\"2xx\"} 1\n"))
            #expect(metrics.text.contains("headway_gateway_open_sockets 1\n"))
            for path in ["/a", "/b", "/v1/nothing"] { _ = try await client.ask("GET", path) }
            #expect(try await client.ask("GET", "/metrics").text.contains("requests_total{route=\"none\",class=\"4xx\"} 3\n"))
        }
    }

    @Test func onlyAWebSocketHandshakeOpensOne() async throws {
        try await GatewayFixture.with { fixture in
            let good = [
                ("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket"), ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ]
            func without(_ name: String, _ value: String? = nil) -> [(String, String)] {
                good.filter { $0.0 != name } + (value.map { [(name, $0)] } ?? [])
            }
            for (headers, status) in [
                ([], 426), (without("Upgrade"), 426), (without("Connection"), 426), (without("Upgrade", "h2c"), 426),
                (without("Connection", "close"), 426), (without("Sec-WebSocket-Version"), 426),
                (without("Sec-WebSocket-Version", "8"), 426),
                (without("Sec-WebSocket-Key"), 400), (without("Sec-WebSocket-Key", "abc"), 400),
                (good + [("Origin", "https://evil.example")], 403),
                (good + [("Host", "evil.example")], 421),
            ] as [([(String, String)], Int)] {
                let answer = try await fixture.ask("GET", "/v1/ws", headers: headers)
                #expect(answer.status == status, "\(headers)")
                if status == 426 { #expect(answer.header("upgrade") == "websocket" && answer.header("sec-websocket-version") == "13") }
            }
            // Also when it is not the connection's first request.
            let client = try await fixture.connect()
            #expect(try await client.ask("GET", "/livez").status == 200)
            let opened = try await client.ask("GET", "/v1/ws", headers: good + [("Sec-WebSocket-Protocol", "headway.v1.json")])
            #expect(opened.status == 101 && opened.header("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
            try await eventually("the greeting") { String(decoding: client.unread, as: UTF8.self).contains("\"type\":\"connected\"") }
        }
    }

    @Test func eventStreamsAreDecidedBeforeTheyBegin() async throws {
        try await GatewayFixture.with(.init { $0.allowedOrigins = ["https://app.example"] }) { fixture in
            _ = try await fixture.submit("j")
            let client = try await fixture.connect()
            #expect(try await client.ask("GET", "/v1/jobs/j/events", headers: [("Last-Event-ID", "end")]).status == 204)
            #expect(try await client.ask("GET", "/v1/events?job=a&job=b", headers: [("Last-Event-ID", "end")]).status == 204)
            for (path, cursor) in [
                ("/v1/jobs/a~b/events", ""), ("/v1/jobs/j/events", "x"), ("/v1/jobs/j/events", "-1"), ("/v1/jobs/j/events", "1,2"),
                ("/v1/events", ""),
                ("/v1/events?job=", ""), ("/v1/events?job=a&job=a", ""), ("/v1/events?job=a&job=b", "1"),
                ("/v1/events?" + (0..<33).map { "job=j\($0)" }.joined(separator: "&"), ""),
            ] {
                let answer = try await client.ask("GET", path, headers: cursor.isEmpty ? [] : [("Last-Event-ID", cursor)])
                #expect(answer.status == 400, "\(path) \(cursor)")
            }
            let stream = try await client.ask("GET", "/v1/jobs/j/events", headers: [("Origin", "https://app.example")])
            #expect(stream.status == 200 && stream.header("content-type")?.hasPrefix("text/event-stream") == true)
            #expect(stream.header("x-accel-buffering") == "no" && stream.header("access-control-allow-origin") == "https://app.example")
            try await eventually("the state") { String(decoding: client.unread, as: UTF8.self).contains("id: 1\ndata: {\"job\":\"j\"") }
        }
    }
}
