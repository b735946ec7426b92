import JobStore
import NIOCore
import ProgressCore
import Telemetry
import TestSupport
import Testing

@testable import Gateway

/// Well-formed HTTP with hostile contents, against every route of a real gateway: always a typed answer, never our fault.
@Suite(.timeLimit(.minutes(5))) struct RouteFuzzTests {
    private static let texts = [
        "", "j", "absent", "j~1", "..", "%2e%2e", "%00", "a%0d%0ab", "%ff", "-1", "0", "1", "9223372036854775807", "9223372036854775808",
        "1e9",
        "true", "end", "*", "{0}", "%7B0%7D", "a%2Fb", "%E2%80%AEx", "a+b", "\u{20ac}", "%25", "?", "&", "=", "null", "[]", "'\"<>",
    ]
    private static let paths = [
        "/v1/jobs", "/v1/jobs/T", "/v1/jobs/T/cancel", "/v1/jobs/T/logs", "/v1/jobs/T/preview", "/v1/jobs/T/why", "/v1/jobs/T/retry",
        "/v1/jobs/T/progress", "/v1/jobs/T/files/T", "/v1/uploads",
        "/v1/uploads/T", "/v1/events", "/v1/jobs/T/events", "/v1/ws", "/v1/queues", "/v1/workers", "/v1/pipelines", "/metrics", "/livez",
        "/readyz", "/", "/T", "/v1/T/T/T/T",
    ]
    private static let queries = ["full", "after", "wait_ms", "limit", "name", "job", "since", "x"]
    private static let headers = [
        "Range", "If-None-Match", "Last-Event-ID", "Headway-Fence", "Headway-Write-Token", "Content-Type", "traceparent", "X-Request-Id",
        "Origin", "Host",
        "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Accept", "Expect", "Cookie", "Authorization", "X-Forwarded-For",
    ]
    private static let bodies = [
        "", "{}", "[]", "null", "{\"reason\":\"x\"}", "{\"open\":{\"pipeline\":\"generic\",\"nonce\":\"n\"},\"percent\":3}",
        "{\"percent\":4,\"log\":[\"x\"]}",
        "{\"phase\":\"GENERATING\"}", "{\"params\":{}}", "{\"children\":2,\"id\":\"g\"}",
        "{\"queue\":\"gpu\",\"pipeline\":\"relief\",\"parent\":\"g\"}",
        "{\"queue\":\"gpu\",\"pipeline\":\"relief\"}",
        "{\"queue\":\"gpu\",\"pipeline\":\"relief\",\"id\":\"j\",\"params\":{\"inputs\":[{\"upload\":\"x\",\"name\":\"y\"}]}}",
        "{\"queue\":\"gpu\",\"pipeline\":\"relief\",\"idempotency_key\":\"k\",\"ttl_ms\":1,\"delay_ms\":1}", "\u{89}PNG", "GIF89a",
    ]

    @Test func everyRequestGetsATypedAnswer() async throws {
        try await GatewayFixture.with { fixture in
            _ = try await fixture.submit("j", params: "{\"a\":1}")
            let lease = try await fixture.claim()
            _ = try await fixture.ask("PUT", "/v1/jobs/j/files/j", headers: [("Headway-Fence", lease.fence)], body: [1, 2, 3])
            try await withThrowingTaskGroup(of: Void.self) { group in
                for seed in 0..<8 {
                    group.addTask {
                        var generator = SeededGenerator(seed: UInt64(seed) + 900)
                        var client = try await fixture.connect()
                        for number in 0..<300 {
                            if client.isClosed { client = try await fixture.connect() }
                            let request = Self.request(fence: lease.fence, using: &generator)
                            await client.send(request.bytes)
                            guard let answer = try? await client.response(isHead: request.isHead) else {
                                // A connection may end for what the request before said; a fresh one must answer.
                                let again = try await fixture.connect()
                                await again.send(request.bytes)
                                let answer = try await again.response(isHead: request.isHead)
                                #expect(
                                    Self.isRight(answer),
                                    "seed \(seed) number \(number): \(request.shown) -> \(answer.status) \(answer.text.prefix(200))"
                                )
                                client = try await fixture.connect()
                                continue
                            }
                            #expect(
                                Self.isRight(answer),
                                "seed \(seed) number \(number): \(request.shown) -> \(answer.status) \(answer.text.prefix(200))"
                            )
                            // A stream, or the word that a body may come: nothing more is asked on this one.
                            if answer.status < 200 || answer.header("content-type")?.hasPrefix("text/event-stream") == true
                                || answer.header("connection") == "close"
                            {
                                await client.close()
                                client = try await fixture.connect()
                            }
                        }
                        await client.close()
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await fixture.ask("GET", "/v1/jobs/j").status == 200)
            try await eventually("no rest") { try Disk.entries(fixture.dataDirectory + "/tmp").isEmpty }
            try await eventually("the connections' end") { fixture.registry.exposition().contains("headway_gateway_open_sockets 0\n") }
        }
    }

    private static func isRight(_ answer: RawClient.Response) -> Bool {
        if answer.status == 101 || answer.status == 100 { return true }
        guard answer.status < 500 || answer.status == 503, answer.header("x-content-type-options") == "nosniff" else { return false }
        guard answer.status >= 400, !answer.body.isEmpty else { return true }
        guard let json = try? CheckedJSON(answer.body, maximumDepth: 4) else { return false }
        var isError = false
        json.root.forEachMember { name, value in isError = name == "error" && value.kind == .object }
        return isError && answer.code != "internal_error"
    }

    private struct Request {
        let bytes: [UInt8]
        let isHead: Bool
        var shown: String { String(decoding: bytes.prefix(400), as: UTF8.self) }
    }

    private static func request(fence: String, using generator: inout SeededGenerator) -> Request {
        func text() -> String { generator.pick(texts) }
        var path = generator.pick(paths).split(separator: "T", omittingEmptySubsequences: false)
            .joined(separator: generator.chance(60) ? "j" : text())
        if generator.chance(60) {
            let items = (0..<Int.random(in: 1...3, using: &generator)).map { _ in "\(generator.pick(queries))=\(text())" }
            path += "?" + items.joined(separator: "&")
        }
        var chosen: [(String, String)] = []
        for _ in 0..<Int.random(in: 0...3, using: &generator) {
            var value = text()
            switch generator.pick(headers) {
            case "Range":
                value = "bytes=\(text())-\(text())"
                chosen.append(("Range", value))
            case "Host": if generator.chance(5) { chosen.append(("Host", value)) }
            case "Origin": if generator.chance(20) { chosen.append(("Origin", value)) }
            case let name where name.hasPrefix("Headway-"): chosen.append((name, generator.chance(50) ? fence : value))
            case "Content-Type": chosen.append(("Content-Type", generator.chance(80) ? "application/json" : "image/png"))
            case let name: chosen.append((name, value))
            }
        }
        let method = generator.pick(["GET", "GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"])
        let body = ["POST", "PUT"].contains(method) ? Array(generator.pick(bodies).utf8) : nil
        if body != nil, !chosen.contains(where: { $0.0 == "Content-Type" }) { chosen.append(("Content-Type", "application/json")) }
        return Request(bytes: RawClient.bytes(method, path, headers: chosen, body: body), isHead: method == "HEAD")
    }
}
