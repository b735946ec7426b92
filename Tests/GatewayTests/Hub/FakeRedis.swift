import JobStore
import NIOCore
import NIOEmbedded
import ProgressCore
import TestSupport

@testable import Gateway
@testable import JobStore

/// Redis as the hub sees it, in memory, on an event loop whose clock the test moves: jobs, their events on a channel that
/// loses, delays, copies and reorders, and reads that take their time or fail.
///
/// Safety: everything happens on the test's thread.
final class FakeRedis: HubSource, @unchecked Sendable {
    struct Weather {
        /// Per cent of published events that are lost, come twice, or come late.
        var lost = 0
        var copied = 0
        var late = 0
        /// Longest way of a late event and of a read, in ms.
        var slowness = 0
        /// Per cent of reads that fail.
        var failing = 0
    }

    struct Job {
        var seq = 0
        var phase = Phase.queued
        var owner = Owner.anonymous
        var body = ""
        var milestones: [(seq: Int, phase: Phase, body: String)] = []
        var queue = "gpu"
        var place: JobPlace?
    }

    let loop: EmbeddedEventLoop
    var generator: SeededGenerator
    var weather = Weather()
    var jobs: [JobID: Job] = [:]
    weak var intake: HubIntake?
    private(set) var subscribed: Set<String> = []
    private(set) var readCount = 0
    private(set) var placesAsked = 0
    /// Forecasts of waits, by queue, and who asked for them.
    var frames: [String: WaitFrame] = [:]
    private(set) var framesAsked: [String] = []
    private(set) var isLinkUp = true
    /// Events in flight; those of a dead link never arrive.
    private var generation = 0
    private var waitingSubscriptions: [(channels: [String], promise: EventLoopPromise<Void>)] = []

    init(loop: EmbeddedEventLoop, seed: UInt64) {
        self.loop = loop
        generator = SeededGenerator(seed: seed)
    }

    // MARK: What happens

    /// One accepted change, published.
    func write(_ job: JobID, _ kind: LiveEvent.Kind, phase: Phase) {
        var state = jobs[job] ?? Job()
        state.seq += 1
        state.phase = phase
        let type = kind == .state ? "progress" : kind == .terminal ? phase.rawValue.lowercased() : "phase"
        let salt = generator.next() % 1000
        state.body = "{\"job\":\"\(job)\",\"seq\":\(state.seq),\"type\":\"\(type)\",\"phase\":\"\(phase.rawValue)\",\"salt\":\(salt)}"
        if kind != .state { state.milestones.append((state.seq, phase, state.body)) }
        jobs[job] = state
        publish(job, kind, state)
    }

    func log(_ job: JobID) {
        guard let state = jobs[job] else { return }
        publish(job, .lossy, state, body: "{\"job\":\"\(job)\",\"type\":\"log\"}")
    }

    private func publish(_ job: JobID, _ kind: LiveEvent.Kind, _ state: Job, body: String? = nil) {
        let hex = String(state.seq, radix: 16)
        let letter = Character(Unicode.Scalar(kind.rawValue))
        let payload =
            "1" + String(repeating: "0", count: 16 - hex.count) + hex + String(letter) + "\(state.phase.rank)0 " + (body ?? state.body)
        send(channel(of: job), payload)
    }

    func send(_ channel: String, _ payload: String) {
        guard isLinkUp, subscribed.contains(channel), !generator.chance(weather.lost) else { return }
        for _ in 0..<(generator.chance(weather.copied) ? 2 : 1) {
            let delay = generator.chance(weather.late) ? Int.random(in: 0...max(0, weather.slowness), using: &generator) : 0
            let generation = generation
            loop.scheduleTask(in: .milliseconds(Int64(delay))) { [self] in
                guard generation == self.generation else { return }
                intake?.redisMessage(channel: ByteBuffer(string: channel), payload: ByteBuffer(string: payload))
                intake?.redisReadComplete()
            }
        }
    }

    func killLink() {
        guard isLinkUp else { return }
        isLinkUp = false
        generation += 1
        intake?.redisSubscriptionsLost()
    }

    func restoreLink() {
        guard !isLinkUp else { return }
        isLinkUp = true
        for (channels, promise) in waitingSubscriptions {
            subscribed.formUnion(channels)
            promise.succeed()
        }
        waitingSubscriptions = []
        intake?.redisSubscriptionsRestored()
    }

    // MARK: HubSource

    func channel(of job: JobID) -> String { "live:\(job)" }

    func subscribe(_ channels: [String]) -> EventLoopFuture<Void> {
        let promise = loop.makePromise(of: Void.self)
        if isLinkUp {
            after(0) { [self] in
                subscribed.formUnion(channels)
                promise.succeed()
            }
        } else {
            waitingSubscriptions.append((channels, promise))
        }
        return promise.futureResult
    }

    func unsubscribe(_ channels: [String]) { subscribed.subtract(channels) }

    func heads(_ jobs: [JobID]) -> EventLoopFuture<[JobHead?]> {
        readCount += jobs.count
        return read { [self] in
            jobs.map { job in
                self.jobs[job].map { JobHead(job: job, seq: $0.seq, phase: $0.phase, owner: $0.owner, body: ByteBuffer(string: $0.body)) }
            }
        }
    }

    func sequences(_ jobs: [JobID]) -> EventLoopFuture<[Int]> { read { [self] in jobs.map { self.jobs[$0]?.seq ?? 0 } } }

    func milestones(_ job: JobID, after: Int) -> EventLoopFuture<[Milestone]> {
        read { [self] in
            (jobs[job]?.milestones ?? []).filter { $0.seq > after }
                .map { Milestone(seq: $0.seq, phase: $0.phase, body: ByteBuffer(string: $0.body)) }
        }
    }

    func queueNames(_ jobs: [JobID]) -> EventLoopFuture<[String?]> { read { [self] in jobs.map { self.jobs[$0]?.queue } } }

    func waits(_ queues: [String]) -> EventLoopFuture<[WaitFrame?]> {
        framesAsked += queues
        return read { [self] in queues.map { frames[$0] } }
    }

    func partition(of job: JobID) -> Int { 0 }

    func places(_ questions: [PlaceQuestion]) -> EventLoopFuture<[JobPlace?]> {
        placesAsked += questions.count
        return read { [self] in questions.map { jobs[$0.job]?.place } }
    }

    /// Reads at some moment between the question and the answer.
    private func read<Value: Sendable>(_ value: @escaping @Sendable () -> Value) -> EventLoopFuture<Value> {
        let promise = loop.makePromise(of: Value.self)
        let before = Int.random(in: 0...max(0, weather.slowness), using: &generator)
        let behind = Int.random(in: 0...max(0, weather.slowness), using: &generator)
        let isFailing = generator.chance(weather.failing)
        after(before) { [self] in
            let result = value()
            after(behind) {
                if isFailing { promise.fail(StoreError(.unavailable, "storm")) } else { promise.succeed(result) }
            }
        }
        return promise.futureResult
    }

    private func after(_ ms: Int, _ body: @escaping @Sendable () -> Void) {
        loop.scheduleTask(in: .milliseconds(Int64(ms)), body)
    }
}
