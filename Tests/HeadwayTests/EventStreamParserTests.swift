import TestSupport
import Testing

@testable import headway

struct EventStreamParserTests {
    private func parse(_ text: String) throws -> [EventStreamParser.Item] {
        var parser = EventStreamParser()
        return try parser.feed(Array(text.utf8))
    }

    private func event(_ data: String, id: String = "", name: String = "message") -> EventStreamParser.Item {
        .event(ServerSentEvent(lastEventID: id, name: name, data: data))
    }

    /// The examples of the WHATWG HTML standard, §9.2.6.
    @Test func theExamplesOfTheStandard() throws {
        #expect(try parse("data: YHOO\ndata: +2\ndata: 10\n\n") == [event("YHOO\n+2\n10")])
        #expect(
            try parse(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n")
                == [.comment, event("first event", id: "1"), event("second event"), event(" third event")]
        )
        #expect(try parse("data\n\ndata\ndata\n\ndata:\n") == [event(""), event("\n")])
        #expect(try parse("data:test\n\ndata: test\n\n") == [event("test"), event("test")])
    }

    @Test func allLineEndsAreLineEnds() throws {
        for end in ["\n", "\r", "\r\n"] {
            #expect(try parse("id: 4\(end)event: x\(end)data: a\(end)data: b\(end)\(end)") == [event("a\nb", id: "4", name: "x")])
        }
        #expect(try parse("\u{FEFF}data: a\n\n") == [event("a")])
        #expect(try parse("data: a\u{0}b\nid: x\u{0}y\n\n") == [event("a\u{0}b")])
    }

    @Test func retryIsDigitsOnly() throws {
        #expect(try parse("retry: 1500\n") == [.retry(1500)])
        #expect(try parse("retry: 1.5\nretry: -1\nretry:\nretry: 99999999999\n\n") == [])
    }

    @Test func anIDWithoutDataIsRemembered() throws {
        var parser = EventStreamParser()
        #expect(try parser.feed(Array("id: 7\n\n".utf8)) == [])
        #expect(parser.lastEventID == "7")
        #expect(try parser.feed(Array("data: x\n\n".utf8)) == [event("x", id: "7")])
    }

    /// Whatever the pieces, the same events: thousands of random streams cut at random places.
    @Test func theCutsDoNotMatter() throws {
        var generator = SeededGenerator(seed: 42)
        let pieces = [
            "data: {\"a\":1}", "data:", "data", "id: 12", "id", "event: phase", "retry: 20", ": ping", ":", "unknown: x", "data: é…", "dat",
            "\u{FEFF}data: b", "data: a: b",
        ]
        let ends = ["\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "\r\r"]
        for round in 0..<4000 {
            var text = ""
            for _ in 0..<Int.random(in: 1...12, using: &generator) {
                text += (pieces.randomElement(using: &generator) ?? "") + (ends.randomElement(using: &generator) ?? "")
            }
            let bytes = Array(text.utf8)
            let whole = try parse(text)
            var parser = EventStreamParser()
            var items: [EventStreamParser.Item] = []
            var index = 0
            while index < bytes.count {
                let next = min(bytes.count, index + Int.random(in: 1...7, using: &generator))
                items += try parser.feed(bytes[index..<next])
                index = next
            }
            #expect(items == whole, "round \(round): \(text.debugDescription)")
        }
    }

    @Test func randomBytesNeverCrashIt() throws {
        var generator = SeededGenerator(seed: 9)
        for _ in 0..<3000 {
            let bytes = (0..<Int.random(in: 0...200, using: &generator)).map { _ in
                Bool.random(using: &generator)
                    ? UInt8.random(in: 0...255, using: &generator) : [10, 13, 58, 100].randomElement(using: &generator) ?? 10
            }
            var parser = EventStreamParser(maximumLine: 50, maximumEvent: 100)
            _ = try? parser.feed(bytes)
        }
    }

    @Test func linesAndEventsAreBounded() {
        var parser = EventStreamParser(maximumLine: 100, maximumEvent: 150)
        #expect(throws: EventStreamParser.Oversized.self) { try parser.feed(Array(repeating: UInt8(ascii: "x"), count: 101)) }
        var second = EventStreamParser(maximumLine: 100, maximumEvent: 150)
        let line = Array(("data: " + String(repeating: "y", count: 80) + "\n").utf8)
        #expect(throws: EventStreamParser.Oversized.self) {
            _ = try second.feed(line)
            _ = try second.feed(line)
        }
    }
}
