import Synchronization
import Testing

@testable import headway

@Suite(.timeLimit(.minutes(5))) struct JobWatcherTests {
    /// Keeps what a watch hears.
    private final class Recorder: WatchSink {
        private let heard = Mutex<(raw: [String], links: [JobView.Link])>(([], []))
        var raw: [String] { heard.withLock { $0.raw } }
        var seqs: [Int] { raw.compactMap { JobEvent.parse($0)?.seq } }
        var links: [JobView.Link] { heard.withLock { $0.links } }
        func event(_ event: JobEvent, raw: String, job: String) { heard.withLock { $0.raw.append(raw) } }
        func link(_ link: JobView.Link, job: String) { heard.withLock { $0.links.append(link) } }
    }

    private let connected = "data: {\"type\":\"connected\",\"connection\":\"c\"}\n\n"

    /// Watches `J` on a scripted gateway until the end.
    private func watch(
        lostAfter: Duration = .seconds(20),
        _ script: @escaping @Sendable (FakeGateway.Request, Int) -> FakeGateway.Reply
    ) async throws -> (end: JobEnd, heard: Recorder, requests: [FakeGateway.Request]) {
        try await FakeGateway.with(script) { gateway in
            try await GatewayClient.with(baseURL: gateway.url) { client in
                let recorder = Recorder()
                let watcher = JobWatcher(job: "J", gateway: client, sink: recorder, lostAfter: lostAfter)
                return (try await watcher.run(), recorder, gateway.seen)
            }
        }
    }

    @Test func aStreamIsFollowedToItsEnd() async throws {
        let events = [
            eventJSON(1, "QUEUED"), eventJSON(2, "GENERATING", percent: 10), eventJSON(3, "COMPLETE", percent: 100, type: "complete"),
        ]
        let (end, heard, _) = try await watch { [connected] _, _ in
            .stream(connected + events.enumerated().map { sse($1, id: $0 + 1) }.joined() + sse("{\"seq\":9}", id: 9), staysOpen: true)
        }
        #expect(end == .complete)
        #expect(heard.raw.dropFirst().elementsEqual(events))
    }

    @Test(arguments: [("FAILED", "failed", JobEnd.failed), ("CANCELLED", "cancelled", .cancelled), ("COMPLETE", "progress", .complete)])
    func anEndIsAnEnd(_ phase: String, _ type: String, _ expected: JobEnd) async throws {
        let (end, _, _) = try await watch { _, _ in .stream(sse(eventJSON(5, phase, type: type), id: 5), staysOpen: true) }
        #expect(end == expected)
    }

    @Test func aBrokenStreamIsResumedAtTheCursor() async throws {
        let (end, heard, requests) = try await watch { [connected] _, count in
            switch count {
            case 0:
                .stream(
                    connected + "retry: 1\n" + sse(eventJSON(1, "QUEUED"), id: 1) + sse(eventJSON(2, "GENERATING"), id: 2),
                    staysOpen: false
                )
            case 1: .broken
            default:
                // The snapshot repeats what is known; the watcher tells it once.
                .stream(
                    connected + sse(eventJSON(2, "GENERATING"), id: 2) + sse(eventJSON(3, "COMPLETE", type: "complete"), id: 3),
                    staysOpen: false
                )
            }
        }
        #expect(end == .complete)
        #expect(heard.seqs == [1, 2, 3])
        #expect(requests.map(\.lastEventID) == [nil, "2", "2"])
    }

    @Test func failingStreamsAreReplacedByPolling() async throws {
        let (end, heard, requests) = try await watch { request, count in
            if request.path.contains("/events") { return .answer(status: 502, body: "bad gateway") }
            switch count {
            case 0:
                return .answer(
                    status: 200,
                    body:
                        #"{"state":\#(eventJSON(4, "GENERATING")),"events":[\#(eventJSON(2, "ANALYZING")),\#(eventJSON(3, "GENERATING", type: "phase"))]}"#
                )
            case 1: return .answer(status: 200, body: #"{"state":\#(eventJSON(4, "GENERATING")),"events":[]}"#)
            default:
                return .answer(
                    status: 200,
                    body:
                        #"{"state":\#(eventJSON(6, "COMPLETE", type: "complete")),"events":[\#(eventJSON(6, "COMPLETE", type: "complete"))]}"#
                )
            }
        }
        #expect(end == .complete)
        #expect(heard.seqs == [2, 3, 4, 6])
        #expect(heard.links.contains(.polling))
        #expect(requests.last?.path == "/v1/jobs/J?after=4&wait_ms=20000")
    }

    @Test(arguments: [404, 410])
    func anAbsentJobIsAbsent(_ status: Int) async throws {
        let (end, _, _) = try await watch { _, _ in .answer(status: status, body: #"{"error":{"code":"job_not_found"}}"#) }
        #expect(end == .absent)
    }

    @Test func aGoneEventEndsTheWatch() async throws {
        let (end, _, _) = try await watch { _, _ in .stream("id: end\ndata: {\"type\":\"gone\",\"job\":\"J\"}\n\n", staysOpen: true) }
        #expect(end == .absent)
    }

    @Test func noContentIsJudgedByTheSnapshot() async throws {
        let (end, heard, _) = try await watch { request, _ in
            request.path.contains("/events")
                ? .answer(status: 204, body: "") : .answer(status: 200, body: eventJSON(8, "FAILED", type: "failed"))
        }
        #expect(end == .failed)
        #expect(heard.seqs == [8])
    }

    @Test func aRefusalIsNotRepeated() async throws {
        let (end, _, requests) = try await watch { _, _ in .answer(status: 403, body: "") }
        guard case .refused = end else { return #expect(Bool(false), "\(end)") }
        #expect(requests.count == 1)
    }

    @Test func aSilentWorldIsGivenUp() async throws {
        let start = ContinuousClock.now
        let (end, heard, requests) = try await watch(lostAfter: .seconds(2)) { _, _ in .broken }
        #expect(end == .linkLost)
        #expect(ContinuousClock.now - start >= .seconds(2))
        // How often it tries within two seconds is up to the machine.
        #expect(requests.count >= 1)
        #expect(heard.links.last == .lost)
    }

    @Test func garbageInTheStreamIsSkipped() async throws {
        let (end, heard, _) = try await watch { _, _ in
            .stream(
                sse("not json", id: 1) + sse("[1]", id: 2) + sse(#"{"type":5}"#, id: 3)
                    + sse(eventJSON(4, "COMPLETE", type: "complete"), id: 4),
                staysOpen: true
            )
        }
        #expect(end == .complete)
        #expect(heard.seqs == [4])
    }

    @Test func anEndlessLineDoesNotEndTheWatch() async throws {
        let (end, _, _) = try await watch { _, count in
            count == 0
                ? .stream("retry: 1\ndata: " + String(repeating: "x", count: Limits.eventLineBytes + 10), staysOpen: true)
                : .stream(sse(eventJSON(1, "COMPLETE", type: "complete"), id: 1), staysOpen: true)
        }
        #expect(end == .complete)
    }
}
