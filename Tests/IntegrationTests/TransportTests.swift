import FoundationEssentials
import JobStore
import NIOCore
import ProgressCore
import TestSupport
import Testing

/// One job, watched over every transport at once: the same truth on each.
@Suite(.serialized, .timeLimit(.minutes(5))) struct TransportTests {
    private struct PollAnswer: Decodable {
        let state: WireEvent
        let events: [WireEvent]
    }

    @Test func webSocketEventStreamAndPollingTellTheSame() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            let job = try await deployment.submit(
                "a",
                params: "{\"steps\":25,\"delay_ms\":30,\"stages\":[\"analysis\",\"making\",\"saving\"],\"output\":\"x\"}"
            )
            let webSocket = try await WebSocketClient.connect(port: gateway.port)
            _ = try await webSocket.watch(["a"])
            let stream = try await SSEClient.connect(port: gateway.port, path: "/v1/jobs/a/events")
            let many = try await SSEClient.connect(port: gateway.port, path: "/v1/events?job=a")
            async let polled = poll(gateway, job)
            _ = try await webSocket.next { $0.job == "a" && $0.seq != nil }
            _ = try await deployment.worker(gateway: gateway)
            _ = try await webSocket.next(within: .seconds(40)) { $0.isTerminal }
            _ = try await stream.next(within: .seconds(10)) { $0.isTerminal }
            _ = try await many.next(within: .seconds(10)) { $0.isTerminal }
            let polls = try await polled

            let truth = try await deployment.store.milestones(job, after: 0)
            #expect(truth.count >= 5)
            for events in [webSocket.events(of: "a"), stream.events, many.events] {
                let numbered = events.filter { $0.seq != nil }
                #expect(numbered.filter(\.isMilestone).map(\.text) == truth.map { String(buffer: $0.body) })
                #expect(numbered.map { $0.seq ?? 0 } == Array(1...(truth.last?.seq ?? 0)), "every state by seq")
            }
            let bySeq = Dictionary(grouping: webSocket.events(of: "a").filter { $0.seq != nil }) { $0.seq ?? 0 }.mapValues { $0[0].text }
            for event in stream.events where event.seq != nil { #expect(bySeq[event.seq ?? 0] == event.text) }
            // Polling skips states by nature, never a milestone.
            #expect(polls.milestones == truth.map(\.seq))
            for (seq, percent) in polls.states {
                #expect(bySeq[seq]?.contains("\"percent\":\(percent)") == true)
            }
            #expect(stream.lastEventID == "end")
            let again = try await SSEClient.connect(port: gateway.port, path: "/v1/jobs/a/events", lastEventID: stream.lastEventID)
            #expect(again.status == 204, "after the end a browser's EventSource is told to stay away")
        }
    }

    /// Long-polls to the end like a client without streams.
    private func poll(_ gateway: Deployment.Gateway, _ job: JobID) async throws -> (milestones: [Int], states: [(Int, Double)]) {
        var after = 0
        var milestones: [Int] = []
        var states: [(Int, Double)] = []
        for _ in 0..<1000 {
            let text = try await HTTPText.get(gateway.port, "/v1/jobs/\(job)?after=\(after)&wait_ms=5000").body
            let answer = try JSONDecoder().decode(PollAnswer.self, from: Data(text.utf8))
            milestones += answer.events.compactMap(\.seq)
            after = max(answer.state.seq ?? 0, answer.events.last?.seq ?? 0)
            states.append((answer.state.seq ?? 0, answer.state.percent ?? -1))
            if answer.state.isTerminal { return (milestones, states) }
        }
        throw TestSupportError(.timedOut, "the job did not end over polling")
    }

    @Test func aLateWatcherAndAResumedOneMissNothing() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            _ = try await deployment.worker(gateway: gateway)
            let job = try await deployment.submit("a", params: "{\"steps\":5,\"delay_ms\":10,\"stages\":[\"one\",\"two\",\"three\"]}")
            _ = try await deployment.waitForEnd(job)
            let truth = try await deployment.store.milestones(job, after: 0)
            let late = try await SSEClient.connect(port: gateway.port, path: "/v1/jobs/a/events")
            #expect(try await late.next { $0.isTerminal }.text == truth.last.map { String(buffer: $0.body) })
            let resumed = try await SSEClient.connect(port: gateway.port, path: "/v1/jobs/a/events", lastEventID: "1")
            _ = try await resumed.next { $0.isTerminal }
            #expect(resumed.events.compactMap(\.seq) == truth.dropFirst().map(\.seq))
            let webSocket = try await WebSocketClient.connect(port: gateway.port)
            _ = try await webSocket.watch(["a"], since: ["a": 1])
            _ = try await webSocket.next { $0.isTerminal }
            #expect(webSocket.events(of: "a").compactMap(\.seq) == truth.dropFirst().map(\.seq))
        }
    }

    @Test func absentIsNotExpired() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            let expired = try await SSEClient.connect(port: gateway.port, path: "/v1/jobs/b/events", lastEventID: "41")
            #expect(try await expired.next { $0.type == "gone" }.id == "end")
            #expect(try await HTTPText.get(gateway.port, "/v1/jobs/b?after=41").status == 410)
            #expect(try await HTTPText.get(gateway.port, "/v1/jobs/b").status == 404)
            // Without a cursor a watch waits for the job to appear.
            let early = try await WebSocketClient.connect(port: gateway.port)
            _ = try await early.watch(["later"])
            _ = try await deployment.submit("later")
            #expect(try await early.next { $0.job == "later" && $0.seq == 1 }.phase == "QUEUED")
        }
    }
}
