import JobStore
import NIOCore
import NIOPosix
import ProgressCore
import RedisLink
import Synchronization
import TestSupport
import Testing

/// Thousands of random commands of several workers, some of them dead or stale, against a real Redis; what was published is
/// then held against the invariants. A failing seed is printed and replays.
@Suite(.timeLimit(.minutes(5))) struct SimulationTests {
    @Test(arguments: [1, 2, 3] as [UInt64])
    func randomWorkersKeepTheInvariants(seed: UInt64) async throws {
        var settings = StoreFixture.quickSettings
        settings.lease = .milliseconds(40)
        try await StoreFixture.with(settings: settings) { fixture in
            let recorder = Recorder(keys: fixture.store.keys)
            let subscriber = RedisSubscriber(
                configuration: fixture.server.configuration(),
                eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
                logger: .quiet,
                delegate: recorder
            )
            let running = Task { try await subscriber.run() }  // ended below
            defer { running.cancel() }
            let jobs = try (0..<20).map { try fixture.job("job-\($0)") }
            try await subscriber.subscribe(jobs.map(fixture.store.keys.live)).get()
            try await Self.play(fixture, jobs, seed: seed)
            var ends: [JobID: JobSnapshot] = [:]
            for job in jobs { ends[job] = try await fixture.snapshot(job) }
            try await eventually(within: .seconds(5), "the last events") {
                jobs.allSatisfy { recorder.events($0).last?.seq == ends[$0]?.seq }
            }
            for job in jobs { Self.check(recorder.events(job), ends[job], seed: seed) }
            for part in ["ready", "delayed", "leases", "deadlines"] {
                #expect(
                    try await fixture.redis.send(["ZCARD", .string("headway:{0}:queue:gpu:\(part)")]).int == 0,
                    "seed \(seed): \(part)"
                )
            }
        }
    }

    /// Plays until every job has ended.
    private static func play(_ fixture: StoreFixture, _ jobs: [JobID], seed: UInt64) async throws {
        let store = fixture.store
        var random = SeededGenerator(seed: seed)
        var leases: [(lease: Lease, write: Int, percent: Double)] = []
        var unsubmitted = jobs
        let error = JobError(code: "generator_failed", message: "x", isRecoverable: true)
        for step in 0... {
            if step % 50 == 0 {
                var live = unsubmitted.count
                for head in try await store.heads(jobs) where head.map({ !$0.phase.isTerminal }) ?? false { live += 1 }
                if live == 0 { return }
                try #require(step < 100_000, "seed \(seed): jobs do not end")
            }
            // The further it goes, the fewer accidents: it must end.
            let calm = step > 3000
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<10:
                guard let job = unsubmitted.popLast() else { continue }
                let attempts = Int.random(in: 1...4, using: &random)
                _ = try await fixture.submit(job.text) { $0.maxAttempts = attempts }
            case 10..<25:
                if case .job(let claim) = try await store.claim(queue: "gpu", worker: "w\(step)", nonce: "\(seed)-\(step)") {
                    leases.append((claim.lease, 0, 0))
                }
            case 25..<75:
                guard let index = leases.indices.randomElement(using: &random) else { continue }
                leases[index].write += 1
                leases[index].percent += Double.random(in: -5...20, using: &random)
                let percent = min(100, max(0, leases[index].percent))
                let phase: Phase = percent < 10 ? .analyzing : percent < 80 ? .generating : .postProcessing
                _ = try? await store.advance(
                    leases[index].lease,
                    write: leases[index].write,
                    to: ProgressState(phase: phase, phasePercent: percent, percent: percent, stage: "s\(Int(percent) / 20)")
                )
            case 75..<85:
                guard let index = leases.indices.randomElement(using: &random) else { continue }
                let lease = leases[index].lease
                switch Int.random(in: 0..<(calm ? 1 : 4), using: &random) {
                case 0: _ = try await store.finish(lease, as: .complete, resultJSON: "{}", stagesMs: [])
                case 1: _ = try await store.fail(lease, error: error, stagesMs: [])
                case 2: _ = try await store.release(lease)
                default: _ = try await store.heartbeat(lease)
                }
                // Now and then the owner does not notice and goes on: a stale writer.
                if Bool.random(using: &random) { leases.remove(at: index) }
            case 85..<88 where !calm:
                guard let job = jobs.randomElement(using: &random) else { continue }
                _ = try await store.cancel(job, by: "fate", reason: nil)
            case 88..<92 where !calm:
                if let index = leases.indices.randomElement(using: &random) { leases.remove(at: index) }
            default:
                _ = try await store.reap(queue: "gpu")
                if calm {
                    _ = try await fixture.redis.send([
                        "ZADD", "headway:{0}:queue:gpu:delayed", "XX", "1", .string(jobs[step % jobs.count].text),
                    ])
                }
            }
        }
    }

    private static func check(_ events: [Recorder.Event], _ end: JobSnapshot?, seed: UInt64) {
        let name = "seed \(seed), \(end?.job.text ?? "?")"
        #expect(events.map(\.seq) == Array(1...max(1, events.count)), "\(name): seq is not contiguous")
        #expect(events.filter(\.phase.isTerminal).count == 1 && events.last?.phase.isTerminal == true, "\(name): not one end")
        #expect(events.last.map { String(buffer: $0.body) } == end?.body, "\(name): the snapshot is not the last event")
        var percent = 0.0
        var rank = 0
        var attempt = 1
        for event in events {
            let text = String(buffer: event.body)
            let now = Double(number("\"percent\":", text)) ?? -1
            let this = Int(number("\"attempt\":", text)) ?? 0
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

    private static func number(_ member: String, _ text: String) -> String {
        guard let start = text.firstRange(of: member)?.upperBound else { return "" }
        return String(text[start...].prefix { $0.isNumber || $0 == "." || $0 == "-" })
    }
}

/// Keeps every event it hears.
private final class Recorder: RedisSubscriberDelegate {
    struct Event: Sendable {
        let seq: Int
        let phase: Phase
        let body: ByteBuffer
    }

    private let keys: Keys
    private let heard = Mutex<[JobID: [Event]]>([:])

    init(keys: Keys) { self.keys = keys }

    func events(_ job: JobID) -> [Event] { heard.withLock { $0[job] ?? [] } }

    func redisMessage(channel: ByteBuffer, payload: ByteBuffer) {
        guard let job = keys.job(ofChannel: channel), let event = LiveEvent(payload: payload), event.kind != .lossy else { return }
        heard.withLock { $0[job, default: []].append(Event(seq: event.seq, phase: event.phase, body: event.body)) }
    }

    func redisSubscriptionsLost() {}
    func redisSubscriptionsRestored() {}
    func redisReadComplete() {}
}
