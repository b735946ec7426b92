import JobStore
import NIOCore
import NIOPosix
import ProgressCore
import RedisLink
import Synchronization
import TestSupport
import Testing

/// Keeps every event of some jobs that it hears, and the hints to their workers.
final class EventRecorder: RedisSubscriberDelegate {
    struct Event: Sendable {
        let seq: Int
        let kind: LiveEvent.Kind
        let phase: Phase
        let hasCancel: Bool
        let body: String
    }

    private struct Heard {
        var events: [JobID: [Event]] = [:]
        /// What came on other channels: channel and payload.
        var others: [[String]] = []
    }

    private let keys: Keys
    private let heard = Mutex(Heard())

    private init(keys: Keys) { self.keys = keys }

    /// Runs `body` while it listens to `jobs`, on a connection of its own.
    static func listening(
        _ fixture: StoreFixture,
        to jobs: [JobID],
        and channels: [String] = [],
        _ body: (EventRecorder) async throws -> Void
    ) async throws {
        let recorder = EventRecorder(keys: fixture.store.keys)
        let subscriber = RedisSubscriber(
            configuration: fixture.server.configuration(),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            logger: .quiet,
            delegate: recorder
        )
        let running = Task { try await subscriber.run() }  // ended below
        defer { running.cancel() }
        try await subscriber.subscribe(jobs.map(fixture.store.keys.live) + channels).get()
        try await body(recorder)
    }

    /// In the order in which they came, without those that have no number of their own.
    func events(_ job: JobID) -> [Event] { heard.withLock { $0.events[job] ?? [] } }

    var others: [[String]] { heard.withLock { $0.others } }

    /// All events of the job, once the newest has come.
    func events(_ job: JobID, upTo seq: Int) async throws -> [Event] {
        try await eventually(within: .seconds(5), "event \(seq) of \(job)") { (events(job).last?.seq ?? 0) >= seq }
        return events(job)
    }

    func redisMessage(channel: ByteBuffer, payload: ByteBuffer) {
        guard let job = keys.job(ofChannel: channel) else {
            return heard.withLock { $0.others.append([String(buffer: channel), String(buffer: payload)]) }
        }
        guard let event = LiveEvent(payload: payload), event.kind != .lossy else { return }
        let flag = payload.getInteger(at: payload.readerIndex + LiveEvent.headerLength - 2, as: UInt8.self)
        let kept = Event(
            seq: event.seq,
            kind: event.kind,
            phase: event.phase,
            hasCancel: flag == UInt8(ascii: "1"),
            body: String(buffer: event.body)
        )
        heard.withLock { $0.events[job, default: []].append(kept) }
    }

    func redisSubscriptionsLost() {}
    func redisSubscriptionsRestored() {}
    func redisReadComplete() {}
}

/// What a watcher of the job may rely on: no number is missing, one end and it is the last, nothing falls within an attempt.
func expectTruthful(_ events: [EventRecorder.Event], _ end: JobSnapshot?, _ name: String) {
    func number(_ member: String, _ text: String) -> String {
        guard let start = text.firstRange(of: member)?.upperBound else { return "" }
        return String(text[start...].prefix { $0.isNumber || $0 == "." || $0 == "-" })
    }
    #expect(events.map(\.seq) == Array(1...max(1, events.count)), "\(name): seq is not contiguous")
    #expect(events.filter(\.phase.isTerminal).count == 1 && events.last?.phase.isTerminal == true, "\(name): not one end")
    #expect(events.last?.body == end?.body, "\(name): the snapshot is not the last event")
    var percent = 0.0
    var rank = 0
    var attempt = 1
    for event in events {
        let now = Double(number("\"percent\":", event.body)) ?? -1
        let this = Int(number("\"attempt\":", event.body)) ?? 0
        if this != attempt {
            #expect(this == attempt + 1 && event.phase == .queued, "\(name): attempt \(attempt) to \(this)")
            (percent, rank, attempt) = (0, 0, this)
        }
        #expect(now >= percent, "\(name): percent fell from \(percent) to \(now) in attempt \(attempt)")
        #expect(event.phase.rank >= rank, "\(name): the phase went back")
        #expect(now < 100 || event.phase == .complete, "\(name): 100 before COMPLETE")
        (percent, rank) = (now, event.phase.rank)
    }
}
