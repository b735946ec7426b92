import NIOCore
import Synchronization
import Telemetry
import TestSupport
import Testing

@testable import Gateway

/// Slow clients, uploads piece by piece, and connections that stop being HTTP.
@Suite(.timeLimit(.minutes(5))) struct HTTPTimeAndStreamTests {
    private static var quick: GatewayLimits {
        var limits = GatewayLimits()
        limits.headTimeout = .milliseconds(120)
        limits.idleTimeout = .milliseconds(250)
        limits.bodyTimeout = .milliseconds(150)
        limits.uploadWindow = .milliseconds(150)
        limits.uploadWindowBytes = 100
        limits.answerTimeout = .milliseconds(200)
        limits.lingerTimeout = .milliseconds(200)
        return limits
    }

    private func timeouts(_ fixture: ServiceFixture) -> Int {
        let line = fixture.registry.exposition().split(separator: "\n").first { $0.hasPrefix("headway_gateway_timeouts_total") }
        return line?.split(separator: " ").last.flatMap { Int($0) } ?? -1
    }

    // MARK: Time

    @Test func anIdleConnectionIsClosedWithoutAWord() async throws {
        try await ServiceFixture.with(limits: Self.quick) { fixture in
            let silent = try await fixture.connect()
            let used = try await fixture.connect()
            #expect(try await used.ask("GET", "/now").status == 200)
            try await silent.waitUntilClosed()
            try await used.waitUntilClosed()
            #expect(silent.unread.isEmpty && used.unread.isEmpty && timeouts(fixture) == 0)
        }
    }

    /// A head that comes byte by byte has its time from its first byte on, however steadily it comes.
    @Test func aSlowHeadIsRefused() async throws {
        try await ServiceFixture.with(limits: Self.quick) { fixture in
            for isFirst in [true, false] {
                let client = try await fixture.connect()
                if !isFirst { #expect(try await client.ask("GET", "/now").status == 200) }
                await client.send("GET /now HTTP/1.1\r\nX-Slow: ")
                let started = ContinuousClock.now
                while !client.isClosed, ContinuousClock.now - started < .seconds(30) {
                    await client.send("a")
                    try await Task.sleep(for: .milliseconds(20))
                }
                #expect(ContinuousClock.now - started < .seconds(30))
                let answer = try await client.response()
                #expect(answer.status == 408 && answer.code == "request_timeout")
            }
            #expect(timeouts(fixture) == 2)
        }
    }

    @Test func aSlowBodyIsRefused() async throws {
        try await ServiceFixture.with(limits: Self.quick) { fixture in
            let client = try await fixture.connect()
            await client.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nab")
            #expect(try await client.response().status == 408)
            try await client.waitUntilClosed()
        }
    }

    @Test func anUploadMustGoOn() async throws {
        try await ServiceFixture.with(limits: Self.quick) { fixture in
            let client = try await fixture.connect()
            await client.send("POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
            // Enough in each window: it may take as long as it takes.
            for _ in 0..<8 {
                await client.send(Array(repeating: 0x61, count: 60))
                try await Task.sleep(for: .milliseconds(50))
            }
            #expect(client.unread.isEmpty)
            // And then a trickle.
            let answer = try await client.response()
            #expect(answer.status == 408)
            try await eventually("the route's end") { fixture.probe.ends == ["cut"] }
        }
    }

    @Test func aRouteThatHangsIsAnsweredFor() async throws {
        try await ServiceFixture.with(limits: Self.quick) { fixture in
            let answer = try await fixture.connect().ask("GET", "/slow")
            #expect(answer.status == 504 && answer.code == "timeout" && answer.header("retry-after") == "5")
            try await eventually("the route's cancellation") { fixture.probe.cancelled == 1 }
        }
    }

    // MARK: Uploads

    @Test func anUploadIsTakenPieceByPiece() async throws {
        try await ServiceFixture.with { fixture in
            let client = try await fixture.connect()
            let body = Array(repeating: UInt8(7), count: 5_000_000)
            #expect(try await client.ask("POST", "/up", body: body).text == "5000000")
            #expect(try await client.ask("POST", "/up", body: []).text == "0")
            #expect(fixture.probe.ends == ["whole", "whole"])
        }
    }

    /// While the route does not take more, the client's bytes stay in its own kernel.
    @Test func aSlowRouteSlowsItsClientDown() async throws {
        try await ServiceFixture.with { fixture in
            let client = try await fixture.connect()
            let (pieces, bytes) = (256, 250_000)
            let sent = Mutex(0)
            // Ends when the last byte is taken, below.
            let sending = Task {
                await client.send("POST /up?hold=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: \(pieces * bytes)\r\n\r\n")
                for _ in 0..<pieces {
                    await client.send(Array(repeating: 1, count: bytes))
                    sent.withLock { $0 += 1 }
                }
            }
            var last = -1
            try await eventually("the flow to stop") {
                defer { last = sent.withLock { $0 } }
                try await Task.sleep(for: .milliseconds(100))
                return last > 0 && last == sent.withLock { $0 }
            }
            // Two kernels' buffers and eight pieces of ours, not the whole of it.
            #expect(last * bytes < 24_000_000)
            fixture.probe.release()
            #expect(try await client.response(within: .seconds(30)).text == "\(pieces * bytes)")
            await sending.value
        }
    }

    @Test func aClientThatLeavesCutsItsUpload() async throws {
        try await ServiceFixture.with { fixture in
            let client = try await fixture.connect()
            await client.send("POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
            try await eventually("the first bytes") { fixture.probe.received == 3 }
            await client.close()
            try await eventually("the route's end") { fixture.probe.ends == ["cut"] }
            let broken = try await fixture.connect()
            await broken.send("POST /up HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")
            #expect(try await broken.response().status == 400)
            try await eventually("the other route's end") { fixture.probe.ends == ["cut", "cut"] }
        }
    }

    // MARK: Streams

    @Test func aConnectionBecomesAStreamAtAnyRequest() async throws {
        try await ServiceFixture.with { fixture in
            for before in [0, 1, 3] {
                let client = try await fixture.connect()
                for n in 0..<before { #expect(try await client.ask("GET", "/now?n=\(n)").text == "now \(n)") }
                #expect(try await client.ask("GET", "/stream").status == 200)
                await client.send("GET /now HTTP/1.1\r\n\r\n\0\u{1}")
                try await eventually("the echo") { client.unread == Array("raw:GET /now HTTP/1.1\r\n\r\n\0\u{1}".utf8) }
                await client.close()
            }
            try await eventually("all to be gone") { fixture.service.connections.count == 0 }
        }
    }

    /// What came behind an upgrade request in one packet is the stream's.
    @Test func bytesBehindAnUpgradeBelongToTheStream() async throws {
        try await ServiceFixture.with { fixture in
            let upgrade = RawClient.bytes("GET", "/stream", headers: [("Connection", "Upgrade"), ("Upgrade", "websocket")])
            let client = try await fixture.connect()
            await client.send(RawClient.bytes("GET", "/now") + upgrade + [0x81, 0x80, 1, 2, 3, 4])
            #expect(try await client.response().text == "now ")
            #expect(try await client.response().status == 200)
            try await eventually("the frame") { fixture.probe.stream == [0x81, 0x80, 1, 2, 3, 4] }
            await client.send([9])
            try await eventually("the next byte") { fixture.probe.stream.last == 9 }
        }
    }

    /// A client that pipelines behind a stream request is mistaken; it does not hurt anybody.
    @Test func requestsBehindAStreamAreThrownAway() async throws {
        try await ServiceFixture.with { fixture in
            let client = try await fixture.connect()
            await client.send(RawClient.bytes("GET", "/stream") + RawClient.bytes("GET", "/now") + RawClient.bytes("GET", "/stream"))
            #expect(try await client.response().status == 200)
            try await eventually("the greeting") { client.unread == Array("raw:".utf8) }
            await client.send("x")
            try await eventually("the echo") { client.unread.last == UInt8(ascii: "x") }
        }
    }

    @Test func aRefusedUpgradeEndsTheConnection() async throws {
        try await ServiceFixture.with { fixture in
            for path in ["/stream?refuse=1", "/now", "/nowhere"] {
                let client = try await fixture.connect()
                let answer = try await client.ask("GET", path, headers: [("Connection", "Upgrade"), ("Upgrade", "h2c")])
                #expect(answer.header("connection") == "close")
                if answer.status == 426 { #expect(answer.header("upgrade") == "websocket") }
                try await client.waitUntilClosed()
            }
            let connect = try await fixture.connect()
            await connect.send("CONNECT example.org:443 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            #expect(try await connect.response().status == 400)
        }
    }

    // MARK: Leaving

    @Test func quiescingLetsAnswersOut() async throws {
        try await ServiceFixture.with { fixture in
            let idle = try await fixture.connect()
            #expect(try await idle.ask("GET", "/now").status == 200)
            let busy = try await fixture.connect()
            await busy.request("GET", "/slow?n=1")
            let streaming = try await fixture.connect()
            #expect(try await streaming.ask("GET", "/stream").status == 200)
            try await eventually("the busy one") { fixture.probe.waiting == 1 }
            fixture.service.startDraining()
            fixture.service.connections.quiesce()
            try await idle.waitUntilClosed()
            #expect(!busy.isClosed && !streaming.isClosed)
            fixture.probe.release()
            let last = try await busy.response()
            #expect(last.text == "slow 1" && last.header("connection") == "close")
            try await busy.waitUntilClosed()
            #expect(!streaming.isClosed)
        }
    }
}
