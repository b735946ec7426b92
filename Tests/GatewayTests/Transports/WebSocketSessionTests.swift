import JobStore
import NIOCore
import NIOHTTP1
import ProgressCore
import TestSupport
import Testing
import WebSocketWire

@testable import Gateway

struct WebSocketSessionTests {
    @Test func answersTheHandshakeAndSaysWhoItIs() {
        let world = HubWorld()
        let client = world.webSocket()
        #expect(client.head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
        #expect(client.head.contains("sec-websocket-protocol: headway.v1.json"))
        #expect(client.events.map(\.type) == ["connected"])
        #expect(client.events.first?.json["connection"] == .string("c0"))
        #expect(world.hub.sessionCount == 1)
        client.leave()
        #expect(world.hub.sessionCount == 0)
    }

    @Test func refusesAKeyThatIsNone() {
        let world = HubWorld()
        var head = HTTPRequestHead(version: .http1_1, method: .GET, uri: "/v1/ws")
        head.headers.add(name: "sec-websocket-key", value: "short")
        let session = WebSocketSession(hub: world.hub, principal: .anonymous, requestHead: head, connectionID: "x")
        let client = TestClient(session, on: world.loops[0], isWebSocket: true)
        world.settle()
        client.collect()
        #expect(client.head.hasPrefix("HTTP/1.1 400"))
        #expect(!client.isOpen)
        world.advance(ms: 6000)
    }

    @Test func acknowledgesEveryNameOfAWatch() {
        let world = HubWorld()
        let client = world.webSocket()
        client.send(#"{"op":"watch","jobs":["a","b c","a",""],"id":7}"#)
        world.advance(ms: 5)
        let ack = client.events.last
        #expect(ack?.type == "ack")
        #expect(ack?.json["id"] == .integer(7))
        #expect(ack?.json["jobs"]?["a"] == .string("ok"))
        #expect(ack?.json["jobs"]?["b c"]?["error"]?["code"] == .string("invalid_job_id"))
        #expect(ack?.json["jobs"]?[""]?["error"]?["code"] == .string("invalid_job_id"))
    }

    @Test func watchesSoManyJobsAndNoMore() {
        let world = HubWorld()
        let client = world.webSocket()
        for start in stride(from: 0, to: 300, by: 100) {
            let names = (start..<start + 100).map { "\"j\($0)\"" }.joined(separator: ",")
            client.send("{\"op\":\"watch\",\"jobs\":[\(names)]}")
        }
        world.advance(ms: 5)
        #expect(client.events.last?.json["jobs"]?["j255"] == .string("ok"))
        #expect(client.events.last?.json["jobs"]?["j256"]?["error"]?["code"] == .string("too_many_watches"))
    }

    @Test(arguments: [
        (#"nonsense"#, "malformed_json"), (#"[1]"#, "malformed_json"), (#"{"op":"watch""#, "malformed_json"), (#"{}"#, "invalid_message"),
        (#"{"op":5}"#, "invalid_message"), (#"{"op":"dance","id":3}"#, "unknown_op"), (#"{"op":"watch"}"#, "invalid_message"),
        (#"{"op":"watch","jobs":"a"}"#, "invalid_message"), (#"{"op":"watch","jobs":[]}"#, "invalid_message"),
        (#"{"op":"watch","jobs":[1]}"#, "invalid_message"), (#"{"op":"watch","jobs":["a"],"since":[1]}"#, "invalid_message"),
        (#"{"op":"watch","jobs":["a"],"since":{"a":-1}}"#, "invalid_message"),
        (#"{"op":"watch","jobs":["a"],"since":{"a":1.5}}"#, "invalid_message"), (#"{"op":"ping","id":"x"}"#, "invalid_message"),
        (#"{"op":"auth","token":"t"}"#, "auth_not_configured"),
    ])
    func answersWhatItCannotServeWithATypedError(_ message: String, _ code: String) {
        let world = HubWorld()
        let client = world.webSocket()
        client.send(message)
        world.advance(ms: 5)
        #expect(client.events.last?.type == "error")
        #expect(client.events.last?.json["error"]?["code"] == .string(code))
        #expect(client.isOpen)
    }

    @Test func losesPatienceAfterManyErrors() {
        let world = HubWorld()
        let client = world.webSocket()
        for _ in 0..<17 { client.send("nonsense") }
        world.advance(ms: 5)
        #expect(client.events.filter { $0.type == "error" }.count == 16)
        #expect(client.closeCode == .tooManyErrors)
        world.advance(ms: 2100)
        #expect(!client.isOpen)
    }

    @Test func closesOnAFloodOfMessages() {
        let world = HubWorld()
        let client = world.webSocket()
        for _ in 0..<700 { client.send(#"{"op":"ping"}"#) }
        world.advance(ms: 5)
        #expect(client.closeCode == .tooManyMessages)
    }

    @Test func closesWithTheCodeOfTheViolation() {
        let cases: [(ByteBuffer, WebSocketCloseCode)] = [
            (WebSocketFrame.make(.binary, ByteBuffer(string: "x"), mask: 1), .unsupportedData),
            (WebSocketFrame.make(.text, ByteBuffer(repeating: 0x61, count: 8193), mask: 1), .messageTooBig),
            (WebSocketFrame.make(.text, ByteBuffer(bytes: [0xFF]), mask: 1), .invalidPayload),
            (WebSocketFrame.make(.text, ByteBuffer(string: "x")), .protocolError),
        ]
        for (bytes, code) in cases {
            let world = HubWorld()
            let client = world.webSocket()
            client.send(bytes)
            world.advance(ms: 5)
            #expect(client.closeCode == code)
            world.advance(ms: 2100)
            #expect(!client.isOpen)
        }
    }

    @Test func answersPingsAndCloses() {
        let world = HubWorld()
        let client = world.webSocket()
        client.send(#"{"op":"ping","id":3}"#)
        world.advance(ms: 5)
        #expect(client.events.last?.type == "pong")
        client.send(WebSocketFrame.close(.normal, mask: 9))
        world.advance(ms: 5)
        #expect(client.closeCode == .normal)
        #expect(!client.isOpen)
    }

    @Test func pingsTheQuietAndBuriesTheDead() {
        let world = HubWorld()
        let client = world.webSocket()
        world.advance(ms: 46_000)
        #expect(client.pings == 2)
        #expect(client.isOpen)
        client.send(WebSocketFrame.make(.pong, ByteBuffer(), mask: 1))
        world.advance(ms: 59_000)
        #expect(client.isOpen)
        world.advance(ms: 17_000)
        #expect(!client.isOpen)
    }

    @Test func turnsAwayWhoHasNoPlace() {
        var limits = HubLimits()
        limits.sessions = 1
        let world = HubWorld(limits: limits)
        let first = world.webSocket()
        let second = world.webSocket()
        #expect(first.isOpen)
        #expect(second.closeCode == .overloaded)
        #expect(second.closeReason.contains("reconnect_after_ms"))
        #expect(!second.isOpen)
        first.leave()
        #expect(world.webSocket().isOpen)
        world.advance(ms: 6000)
    }

    @Test func aDrainSpreadsTheReturnOverItsWindow() throws {
        let world = HubWorld()
        let clients = (0..<100).map { world.webSocket(on: $0) }
        world.hub.drain(over: .seconds(10))
        world.advance(ms: 50)
        let slots = try clients.map { client in
            #expect(client.closeCode == .serviceRestart)
            let json = try #require(JSONValue(parsing: Array(client.closeReason.utf8)))
            guard case .integer(let ms)? = json["reconnect_after_ms"] else { throw WatchProblem("", "") }
            return ms
        }
        #expect(slots.allSatisfy { (0..<10_000).contains($0) })
        #expect(Set(slots.map { $0 / 1000 }).count == 10)
        let late = world.webSocket()
        #expect(late.closeCode == .serviceRestart)
        world.advance(ms: 6000)
        #expect(clients.allSatisfy { !$0.isOpen })
        #expect(world.hub.sessionCount == 0)
    }

    @Test func watchingAgainAfterTheEndTellsTheEndAgain() {
        let world = HubWorld()
        let job = HubWorld.job("a")
        world.redis.write(job, .terminal, phase: .complete)
        let client = world.webSocket()
        for _ in 0..<2 {
            client.send(#"{"op":"watch","jobs":["a"]}"#)
            world.advance(ms: 10)
        }
        #expect(client.types(of: job) == ["complete", "complete"])
    }
}

struct JSONValueTests {
    @Test(arguments: [
        (#" {"a":[1,-2,true,null,"x"]} "#, JSONValue.object(["a": .array([.integer(1), .integer(-2), .bool(true), .null, .string("x")])])),
        (#""\u00e9\ud83d\ude00\n\/""#, .string("é😀\n/")), ("1.5e3", .number), ("0", .integer(0)), ("[]", .array([])),
        ("99999999999999999999", .number),
    ])
    func reads(_ text: String, _ value: JSONValue) { #expect(JSONValue(parsing: Array(text.utf8)) == value) }

    @Test(arguments: [
        "", " ", "{", "}", "[1,]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "01", "-", "1.", "1e", "tru", "\"", "\"\\x\"", "\"\\ud800\"",
        "\"\u{1}\"",
        "1 2", "nulll", "[[[[[[[[[[1]]]]]]]]]]", "{a:1}", "'a'", "\"\\u12\"",
    ])
    func refuses(_ text: String) { #expect(JSONValue(parsing: Array(text.utf8)) == nil) }

    @Test(.timeLimit(.minutes(5))) func survivesGarbage() {
        let seeds = [#"{"op":"watch","jobs":["a","b"],"since":{"a":41},"id":1}"#, #"["\u00e9",1.5e-3,{"x":[]}]"#].map { Array($0.utf8) }
        var generator = SeededGenerator(seed: 5)
        for round in 0..<100_000 {
            var text = seeds[round % 2]
            for _ in 0..<Int.random(in: 1...5, using: &generator) {
                text[Int.random(in: 0..<text.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            _ = JSONValue(parsing: text.prefix(Int.random(in: 0...text.count, using: &generator)))
            _ = try? ClientMessage.parse(ByteBuffer(bytes: text))
        }
    }
}
