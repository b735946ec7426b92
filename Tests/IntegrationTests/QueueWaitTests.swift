import JobStore
import ProgressCore
import TestSupport
import Testing

/// How long a waiting job waits, as its watchers are told, with a real worker.
@Suite(.serialized, .timeLimit(.minutes(5))) struct QueueWaitTests {
    private func number(_ name: String, _ text: String) -> Int? {
        guard let start = text.firstRange(of: "\"\(name)\":")?.upperBound else { return nil }
        return Int(text[start...].prefix { $0.isNumber || $0 == "-" })
    }

    @Test func aWaitingWatcherSeesItsWaitFall() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            // What such jobs take is said by their plan; the rest by the first that runs.
            let body = """
                "queue":"gpu","pipeline":"generic","params":{"steps":100,"delay_ms":60,"stages":["making"]},\
                "plan":[{"stage":"making","units":100,"declared_ms":6000}]
                """
            for name in ["first", "second", "third"] {
                let answer = try await HTTPText.post(gateway.port, "/v1/jobs", "{\"id\":\"\(name)\",\(body)}")
                #expect(answer.status == 202, "\(answer.body)")
            }
            let socket = try await WebSocketClient.connect(port: gateway.port, within: .seconds(60))
            _ = try await socket.watch(["third"], within: .seconds(60))
            let stream = try await SSEClient.connect(port: gateway.port, path: "/v1/jobs/third/events")
            let none = try await socket.next(within: .seconds(60)) {
                $0.text.contains("\"type\":\"queue\"") && $0.text.contains("no_worker")
            }
            #expect(number("queue_position", none.text) == 2 && !none.text.contains("eta_ms"), "\(none.text)")
            let plain = try deployment.headway("plain", ["watch", "third", "--gateway", gateway.url])
            _ = try await plain.line(startingWith: "QUEUED, 2 ahead, no worker", within: .seconds(60))

            let worker = try await deployment.worker(gateway: gateway)
            _ = try await socket.next(within: .seconds(120)) { $0.isTerminal && $0.job == "third" }
            #expect(try await plain.process.waitForExit(within: .seconds(60)) == .status(0))
            #expect(plain.output.contains("starts in "), "\(plain.output)")
            for (name, texts) in [
                ("WebSocket", socket.events(of: "third").map(\.text)), ("SSE", stream.events(of: "third").map(\.text)),
            ] {
                let waits = texts.filter { $0.contains("\"type\":\"queue\"") }.compactMap { number("eta_ms", $0) }
                let (first, last) = (waits.first ?? 0, waits.last ?? 0)
                #expect(waits.count >= 2 && last < first, "\(name): \(waits)")
                for text in texts where number("eta_ms", text) != nil && text.contains("\"type\":\"queue\"") {
                    let (low, middle, high) = (number("eta_low_ms", text), number("eta_ms", text), number("eta_high_ms", text))
                    #expect((low ?? -1) <= (middle ?? 0) && (middle ?? 0) <= (high ?? -1), "\(name): \(text)")
                }
            }
            worker.kill()
        }
    }
}
