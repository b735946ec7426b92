import JobStore
import ProgressCore
import TestSupport
import Testing

/// A group and its children, run by real workers and watched over every transport.
@Suite(.serialized, .timeLimit(.minutes(5))) struct GroupTests {
    private func children(in text: String) -> [String: Int] {
        guard let start = text.firstRange(of: "\"children\":{")?.upperBound else { return [:] }
        var counts: [String: Int] = [:]
        for pair in text[start...].prefix(while: { $0 != "}" }).split(separator: ",") {
            let parts = pair.split(separator: ":")
            if parts.count == 2, let count = Int(parts[1]) { counts[parts[0].filter { $0 != "\"" }] = count }
        }
        return counts
    }

    @Test func aGroupOfFiveIsWatchedToItsEnd() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            let group = try await HTTPText.post(gateway.port, "/v1/jobs", "{\"id\":\"book\",\"children\":5}")
            #expect(group.status == 202)
            let socket = try await WebSocketClient.connect(port: gateway.port, within: .seconds(30))
            _ = try await socket.watch(["book"], within: .seconds(30))
            let stream = try await SSEClient.connect(port: gateway.port, path: "/v1/jobs/book/events")
            let watch = try deployment.headway("watch", ["watch", "book", "--json", "--gateway", gateway.url])
            let plain = try deployment.headway("plain", ["watch", "book", "--gateway", gateway.url])
            _ = try await watch.line(startingWith: "{", within: .seconds(60))
            _ = try await plain.line(startingWith: "QUEUED", within: .seconds(60))

            let child =
                "{\"queue\":\"gpu\",\"pipeline\":\"generic\",\"parent\":\"book\",\"params\":{\"steps\":8,\"delay_ms\":20,\"stages\":[\"page\"]}}"
            for number in 1...5 {
                let answer = try await HTTPText.post(gateway.port, "/v1/jobs", child)
                #expect(answer.status == 202 && answer.body.contains("\"job\":\"book~\(number)\""), "\(answer.body)")
            }
            _ = try await deployment.worker("one", gateway: gateway)
            _ = try await deployment.worker("two", gateway: gateway)

            _ = try await socket.next(within: .seconds(90)) { $0.isTerminal && $0.job == "book" }
            _ = try await stream.next(within: .seconds(60)) { $0.isTerminal }
            #expect(try await watch.process.waitForExit(within: .seconds(60)) == .status(0))
            #expect(try await plain.process.waitForExit(within: .seconds(60)) == .status(0))
            for text in [socket.events(of: "book").map(\.text), stream.events(of: "book").map(\.text), [watch.output]] {
                expectTruthful(try WireEvent.lines(text.joined(separator: "\n")), end: "complete")
            }
            for event in socket.events(of: "book") where event.seq != nil {
                let counts = children(in: event.text)
                #expect(counts["expected"] == 5 && counts.filter { $0.key != "expected" }.values.reduce(0, +) <= 5, "\(event.text)")
            }
            #expect(children(in: socket.events(of: "book").last?.text ?? "")["complete"] == 5)
            #expect(plain.output.contains(" of 5 done") && plain.output.contains("COMPLETE"), "\(plain.output)")
            for number in 1...5 {
                let job = try #require(JobID("book~\(number)"))
                #expect(try await deployment.store.snapshot(job)?.phase == .complete)
            }
        }
    }
}
