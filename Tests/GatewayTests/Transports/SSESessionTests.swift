import JobStore
import NIOCore
import ProgressCore
import Testing

@testable import Gateway

struct SSESessionTests {
    private let job = HubWorld.job("a")

    @Test func beginsWithItsHeadAndConnected() {
        let world = HubWorld()
        let client = world.eventStream([WatchRequest(job: job)])
        #expect(client.head.hasPrefix("HTTP/1.1 200 OK\r\n"))
        for header in ["content-type: text/event-stream", "cache-control: no-cache, no-transform", "x-accel-buffering: no"] {
            #expect(client.head.contains(header))
        }
        #expect(client.events.map(\.type) == ["connected"])
        #expect(client.retries.allSatisfy { (1000...5000).contains($0) } && client.retries.count == 1)
    }

    @Test func carriesTheSeqAsIdAndEndsAfterTheEnd() {
        let world = HubWorld()
        for _ in 0..<2 { world.redis.write(job, .state, phase: .generating) }
        let client = world.eventStream([WatchRequest(job: job)])
        world.advance(ms: 10)
        world.redis.write(job, .milestone, phase: .postProcessing)
        world.redis.log(job)
        world.redis.write(job, .terminal, phase: .complete)
        world.advance(ms: 10)
        #expect(client.types(of: job) == ["progress", "phase", "log", "complete"])
        #expect(client.ids == ["2", "3", "end"])
        #expect(!client.isOpen)
        #expect(world.hub.sessionCount == 0)
    }

    @Test func resumesBehindItsCursor() {
        let world = HubWorld()
        for _ in 1...5 { world.redis.write(job, .milestone, phase: .generating) }
        let client = world.eventStream([WatchRequest(job: job, since: 3)])
        world.advance(ms: 10)
        #expect(client.seqs(of: job) == [4, 5])
    }

    @Test func aJobThatIsGoneEndsTheStreamForGood() {
        let world = HubWorld()
        let client = world.eventStream([WatchRequest(job: job, since: 3)])
        world.advance(ms: 10)
        #expect(client.types(of: job) == ["gone"])
        #expect(client.ids == ["end"])
        #expect(!client.isOpen)
    }

    @Test func aJobThatNeverCameClosesTheStreamWithoutACursor() {
        let world = HubWorld()
        let client = world.eventStream([WatchRequest(job: job)])
        world.advance(ms: 59_000)
        #expect(client.isOpen)
        #expect(client.comments == 3 || client.comments == 4)
        world.advance(ms: 2000)
        #expect(client.texts.last?.contains("job_not_found") == true)
        #expect(client.ids.isEmpty)
        #expect(!client.isOpen)
    }

    @Test func severalJobsShareOnePositionalCursor() {
        let world = HubWorld()
        let other = HubWorld.job("b")
        world.redis.write(job, .state, phase: .generating)
        world.redis.write(other, .state, phase: .generating)
        let requests = [WatchRequest(job: job), WatchRequest(job: other), WatchRequest(job: HubWorld.job("c"), isEnd: true)]
        let client = world.eventStream(requests, isMulti: true)
        world.advance(ms: 10)
        #expect(client.ids.last == "1,1,end")
        world.redis.write(other, .terminal, phase: .complete)
        world.advance(ms: 10)
        #expect(client.ids.last == "1,end,end")
        #expect(client.isOpen)
        world.redis.write(job, .milestone, phase: .generating)
        world.redis.write(job, .terminal, phase: .failed)
        world.advance(ms: 10)
        #expect(client.ids.last == "end")
        #expect(!client.isOpen)
        #expect(client.seqs(of: job) == [1, 2, 3])
        #expect(client.seqs(of: other) == [1, 2])
    }

    @Test func aStreamOfEndedJobsEndsAtOnce() {
        let world = HubWorld()
        let client = world.eventStream([WatchRequest(job: job, isEnd: true)])
        #expect(!client.isOpen)
    }

    @Test func overloadAndDrainAskToComeBack() {
        var limits = HubLimits()
        limits.sessions = 1
        let world = HubWorld(limits: limits)
        world.redis.write(job, .state, phase: .generating)
        let client = world.eventStream([WatchRequest(job: job)])
        let second = world.eventStream([WatchRequest(job: job)])
        #expect(second.head.hasPrefix("HTTP/1.1 200 OK"))
        #expect(second.retries.count == 1 && second.retries[0] >= 10_000)
        #expect(!second.isOpen)
        world.advance(ms: 10)
        world.hub.drain(over: .seconds(30))
        world.advance(ms: 10)
        #expect(client.retries.count == 2 && (0..<30_000).contains(client.retries[1]))
        #expect(!client.isOpen)
        world.advance(ms: 6000)
    }
}

struct EventStreamEncoderTests {
    @Test func aLineBreakInTheJSONStaysInItsField() {
        let body = ByteBuffer(string: "{\"a\":\n1,\r\n\"b\":\r2}")
        let block = EventStreamEncoder.block(kind: .state, seq: 12, body: body)
        #expect(String(buffer: block) == "id: 12\ndata: {\"a\":\ndata: 1,\ndata: \"b\":\ndata: 2}\n\n")
    }

    @Test func theIdCanBeCutOff() {
        for (kind, seq) in [(OutboundEvent.Kind.state, 9), (.milestone, 1_234_567), (.terminal, 3), (.lossy, 4), (.gone, 0)] {
            let event = OutboundEvent(kind: kind, seq: seq, phase: .generating, body: ByteBuffer(string: "{}"), for: [.eventStream])
            #expect(String(buffer: event.bytes(for: .multiplexedEventStream)) == "data: {}\n\n")
        }
    }

    @Test func cursorsFitTheirJobsOrAreRefused() throws {
        let jobs = ["a", "b", "c"].map(HubWorld.job)
        let requests = try #require(EventCursor.requests(for: jobs, lastEventID: "41,end,0"))
        #expect(requests.map(\.since) == [41, nil, nil])
        #expect(requests.map(\.isEnd) == [false, true, false])
        #expect(EventCursor.requests(for: jobs, lastEventID: "end")?.allSatisfy(\.isEnd) == true)
        #expect(EventCursor.requests(for: jobs, lastEventID: nil)?.count == 3)
        for bad in ["41", "41,end", "41,end,0,1", "41,end,x", "41,end,-1", ",,", "99999999999999999999,1,1"] {
            #expect(EventCursor.requests(for: jobs, lastEventID: bad) == nil, "\(bad)")
        }
        #expect(EventCursor.text([41, nil, 0]) == "41,end,0")
        #expect(EventCursor.text([nil, nil]) == "end")
    }
}
