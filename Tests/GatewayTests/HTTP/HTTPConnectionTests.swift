import NIOCore
import Telemetry
import TestSupport
import Testing

@testable import Gateway

/// One client's connection, byte by byte on a real socket.
@Suite(.timeLimit(.minutes(5))) struct HTTPConnectionTests {
    @Test func answersManyRequestsOnOneConnection() async throws {
        try await ServiceFixture.with { fixture in
            let client = try await fixture.connect()
            for n in 0..<200 {
                let answer = try await client.ask("GET", "/now?n=\(n)")
                #expect(answer.status == 200 && answer.text == "now \(n)" && answer.header("connection") == "keep-alive")
            }
            #expect(try await client.ask("POST", "/echo", body: Array("hello".utf8)).text == "hello")
            #expect(try await client.ask("POST", "/echo", body: []).text.isEmpty)
            #expect(try await client.ask("GET", "/fails").code == "conflict")
            #expect(try await client.ask("GET", "/nowhere").code == "not_found")
            #expect(fixture.registry.exposition().contains("headway_gateway_connections_total 1\n"))
            #expect(fixture.registry.exposition().contains("headway_gateway_requests_total{route=\"GET /now\",class=\"2xx\"} 200\n"))
        }
    }

    @Test func everyAnswerIsSafeToShow() async throws {
        try await ServiceFixture.with { fixture in
            let client = try await fixture.connect()
            for path in ["/now", "/nowhere", "/fails"] {
                let answer = try await client.ask("GET", path)
                #expect(answer.header("x-content-type-options") == "nosniff")
                #expect(answer.header("content-security-policy")?.contains("frame-ancestors 'none'") == true)
                #expect(answer.header("cache-control") == "no-store")
                #expect(answer.header("date")?.hasSuffix(" GMT") == true)
                #expect(answer.header("x-request-id")?.isEmpty == false)
            }
        }
    }

    @Test func requestIDsAreEchoedWhenPlainAndMadeOtherwise() async throws {
        try await ServiceFixture.with { fixture in
            let client = try await fixture.connect()
            #expect(try await client.ask("GET", "/now", headers: [("X-Request-Id", "abc-1.2_3")]).header("x-request-id") == "abc-1.2_3")
            var seen: Set<String> = []
            for id in ["", "a b", "a\"b", "<script>", String(repeating: "a", count: 65)] {
                let answer = try await client.ask("GET", "/fails", headers: [("X-Request-Id", id)])
                let made = try #require(answer.header("x-request-id"))
                #expect(made != id && seen.insert(made).inserted)
                #expect(answer.text.contains("\"request_id\":\"\(made)\""))
            }
        }
    }

    /// Requests sent ahead are answered in order, also when the first takes longest.
    @Test func pipelinedRequestsKeepTheirOrder() async throws {
        try await ServiceFixture.with { fixture in
            let client = try await fixture.connect()
            var bytes = RawClient.bytes("GET", "/slow?n=0")
            for n in 1...8 { bytes += RawClient.bytes("GET", "/now?n=\(n)") }
            bytes += RawClient.bytes("POST", "/echo", body: Array("nine".utf8))
            await client.send(bytes)
            try await eventually("the first to be worked on") { fixture.probe.waiting == 1 }
            #expect(client.unread.isEmpty)
            fixture.probe.release()
            #expect(try await client.response().text == "slow 0")
            for n in 1...8 { #expect(try await client.response().text == "now \(n)") }
            #expect(try await client.response().text == "nine")
        }
    }

    @Test func tooManyRequestsAheadEndTheConnection() async throws {
        try await ServiceFixture.with { fixture in
            let client = try await fixture.connect()
            let flood = (0..<5000).flatMap { RawClient.bytes("GET", "/now?n=\($0)") }
            // In one write, so that the read that brings the slow request brings too many others with it.
            await client.send(RawClient.bytes("GET", "/slow") + flood)
            try await eventually("the slow route to begin") { fixture.probe.waiting == 1 }
            fixture.probe.release()
            _ = try await client.response()
            try await client.waitUntilClosed()
            #expect(client.unread.count < 40 * 600)
            #expect(try await fixture.connect().ask("GET", "/now").status == 200)
        }
    }

    /// A client that asks for much and reads nothing: one answer is held for it, not all of them.
    @Test func aClientThatDoesNotReadIsLeftToWait() async throws {
        var limits = GatewayLimits()
        limits.sendTimeout = .milliseconds(400)
        try await ServiceFixture.with(limits: limits) { fixture in
            let client = try await RawClient.connect(port: fixture.port, receiveBuffer: 4096, reads: false)
            for _ in 0..<10 { await client.send(RawClient.bytes("GET", "/big")) }
            try await eventually("the answer to be given up") {
                fixture.registry.exposition().contains("headway_gateway_timeouts_total 1\n")
            }
            try await eventually("the connection to be gone") { fixture.service.connections.count == 0 }
            #expect(fixture.registry.exposition().contains("route=\"GET /big\",class=\"2xx\"} 1\n"))
        }
    }

    @Test func bodiesHaveALimitHoweverTheyCome() async throws {
        try await ServiceFixture.with { fixture in
            let full = Array(repeating: UInt8(ascii: "x"), count: 1000)
            #expect(try await fixture.connect().ask("POST", "/echo", body: full).body == full)
            let announced = try await fixture.connect()
            await announced.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n")
            let refusal = try await announced.response()
            #expect(refusal.status == 413 && refusal.code == "body_too_large" && refusal.header("connection") == "close")
            try await announced.waitUntilClosed()
            // Without a length: refused when the limit is passed, not when the memory is gone.
            let chunked = try await fixture.connect()
            await chunked.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in 0..<3 { await chunked.send("190\r\n" + String(repeating: "x", count: 400) + "\r\n") }
            #expect(try await chunked.response().code == "body_too_large")
            let none = try await fixture.connect()
            #expect(try await none.ask("GET", "/now", body: [1]).code == "body_too_large")
            let small = try await fixture.connect()
            await small.send(
                "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: v\r\n\r\n"
            )
            #expect(try await small.response().text == "abc")
        }
    }

    /// The refusal reaches a client that is still sending; it is not lost to a reset.
    @Test func aRefusedSenderLearnsWhy() async throws {
        try await ServiceFixture.with { fixture in
            for path in ["/refuse", "/nowhere", "/echo"] {
                let client = try await fixture.connect()
                await client.send("POST \(path) HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n")
                for _ in 0..<30 { await client.send(Array(repeating: 0x61, count: 100_000)) }
                let answer = try await client.response()
                #expect([409, 404, 413].contains(answer.status), "\(path)")
                #expect(answer.header("connection") == "close")
                try await client.waitUntilClosed()
            }
        }
    }

    @Test func permissionToSendIsGivenOnlyWhenThereIsAPoint() async throws {
        try await ServiceFixture.with { fixture in
            let client = try await fixture.connect()
            await client.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            #expect(try await client.response().status == 100)
            await client.send("ok")
            #expect(try await client.response().text == "ok")
            let refused = try await fixture.connect()
            await refused.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n")
            #expect(try await refused.response().status == 413)
        }
    }

    @Test func headMethodsAndUnknownOnes() async throws {
        try await ServiceFixture.with(allowedOrigins: ["https://app.example"]) { fixture in
            let client = try await fixture.connect()
            let head = try await client.ask("HEAD", "/now?n=12")
            #expect(head.status == 200 && head.header("content-length") == "6" && head.body.isEmpty)
            let missing = try await client.ask("HEAD", "/nowhere")
            #expect(missing.status == 404 && missing.header("content-length") != "0")
            let wrong = try await client.ask("DELETE", "/now")
            #expect(wrong.status == 405 && wrong.header("allow") == "GET, HEAD, OPTIONS" && wrong.code == "method_not_allowed")
            let options = try await client.ask("OPTIONS", "/echo")
            #expect(options.status == 204 && options.header("allow") == "POST, OPTIONS" && options.header("content-length") == nil)
            #expect(options.header("access-control-allow-methods") == nil)
            let preflight = try await client.ask("OPTIONS", "/echo", headers: [("Origin", "https://app.example")])
            #expect(preflight.status == 204 && preflight.header("access-control-allow-methods") == "POST, OPTIONS")
            #expect(preflight.header("access-control-allow-origin") == "https://app.example" && preflight.header("vary") == "origin")
            #expect(try await client.ask("OPTIONS", "/nowhere").status == 404)
            #expect(try await client.ask("GET", "/now", headers: [("Origin", "https://evil.example")]).code == "origin_refused")
            #expect(try await client.ask("GET", "/now", headers: [("Host", "evil.example")]).status == 421)
            #expect(try await client.ask("GET", "/now", headers: [("Origin", "http://localhost")]).status == 200)
        }
    }

    @Test func olderClientsAndTheirConnections() async throws {
        try await ServiceFixture.with { fixture in
            let once = try await fixture.connect()
            await once.send("GET /now HTTP/1.0\r\nHost: localhost\r\n\r\n")
            #expect(try await once.response().header("connection") == "close")
            try await once.waitUntilClosed()
            let kept = try await fixture.connect()
            await kept.send("GET /now HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
            #expect(try await kept.response().header("connection") == "keep-alive")
            let closing = try await fixture.connect()
            #expect(try await closing.ask("GET", "/now", headers: [("Connection", "close")]).header("connection") == "close")
            try await closing.waitUntilClosed()
        }
    }

    @Test func valuesOfHeadersCannotSplitAnAnswer() async throws {
        try await ServiceFixture.with { fixture in
            let answer = try await fixture.connect().ask("GET", "/split?v=a%0d%0aset-cookie:%20x=1%0d%0a%0d%0abody")
            #expect(answer.header("x-evil") == "aset-cookie: x=1body" && answer.header("set-cookie") == nil && answer.text == "x")
        }
    }

    @Test func aRouteLearnsThatItsClientHasGone() async throws {
        try await ServiceFixture.with { fixture in
            let client = try await fixture.connect()
            await client.request("GET", "/slow")
            try await eventually("the request") { fixture.probe.waiting == 1 }
            await client.close()
            try await eventually("the route's cancellation") { fixture.probe.cancelled == 1 }
            #expect(fixture.service.connections.count == 0)
        }
    }

    @Test func theConnectionsHaveALimit() async throws {
        var limits = GatewayLimits()
        limits.connections = 3
        try await ServiceFixture.with(limits: limits) { fixture in
            var clients: [RawClient] = []
            for _ in 0..<3 {
                let client = try await fixture.connect()
                #expect(try await client.ask("GET", "/now").status == 200)
                clients.append(client)
            }
            let refused = try await fixture.connect()
            try await refused.waitUntilClosed()
            #expect(fixture.registry.exposition().contains("headway_gateway_connections_refused_total 1\n"))
            await clients[0].close()
            try await eventually("a place") { fixture.service.connections.count == 2 }
            #expect(try await fixture.connect().ask("GET", "/now").status == 200)
        }
    }
}
