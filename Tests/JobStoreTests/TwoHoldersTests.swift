import JobStore
import NIOCore
import NIOPosix
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// Two processes take themselves for the owner of one job, with the same fence: the answer to one claim reached both, say. What they do
/// goes through one at a time, and each is told what is true.
@Suite(.timeLimit(.minutes(5))) struct TwoHoldersTests {
    static let request = CancelRequest(by: "me", reason: "enough")

    /// A store with a connection of its own.
    static func withStore(_ fixture: StoreFixture, _ body: (JobStore) async throws -> Void) async throws {
        let redis = RedisClient(
            configuration: fixture.server.configuration(poolSize: 1),
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            logger: .quiet
        )
        let running = Task { try await redis.run() }  // ended below
        defer { running.cancel() }
        try await eventually(within: .seconds(60), "a connection") { redis.isConnected }
        try await body(JobStore(redis: redis, keys: fixture.store.keys, settings: fixture.store.settings))
    }

    private static func with(_ body: (StoreFixture, [JobStore]) async throws -> Void) async throws {
        var settings = StoreSettings()
        settings.lease = .seconds(60)
        settings.reapInterval = .zero
        // The middle of the jitter.
        settings.random = { 500_000 }
        try await StoreFixture.with(settings: settings) { fixture in
            try await fixture.store.registerQueues(["gpu"])
            try await withStore(fixture) { first in
                try await withStore(fixture) { second in try await body(fixture, [first, second]) }
            }
        }
    }

    /// Both hear of the same claim.
    private static func claim(_ stores: [JobStore], nonce: String) async throws -> Lease {
        var leases: [Lease] = []
        for store in stores {
            guard case .job(let claim) = try await store.claim(queue: "gpu", worker: "w1", nonce: nonce) else {
                throw TestSupportError(.timedOut, "nothing to claim for \(nonce)")
            }
            leases.append(claim.lease)
        }
        #expect(leases[0] == leases[1])
        return leases[0]
    }

    private static func state(tenths: Int) -> ProgressState {
        let percent = Double(tenths) / 10
        let phase: Phase = tenths < 200 ? .analyzing : tenths < 800 ? .generating : .postProcessing
        return ProgressState(phase: phase, phasePercent: percent, percent: percent, stage: "s\(tenths / 300)")
    }

    // MARK: One after the other

    /// Every answer and every state is foreseen by a model of the contract.
    @Test(arguments: 1...12) func eachIsToldWhatIsTrue(seed: Int) async throws {
        try await Self.with { fixture, stores in
            var random = SeededGenerator(seed)
            let job = try fixture.job("a")
            try await EventRecorder.listening(fixture, to: [job]) { recorder in
                _ = try await fixture.submit("a") { $0.maxAttempts = 2 }
                var model = HolderModel()
                var leases: [Lease] = []
                var numbers = [0, 0]
                var afterwards = 0
                for step in 0... {
                    if model.isEnded { afterwards += 1 }
                    if afterwards > 15 { break }
                    if model.waits {
                        // A back-off that is over.
                        _ = try await fixture.redis.send(["ZADD", "headway:{0}:queue:gpu:delayed", "XX", "1", "a"])
                        leases.append(try await Self.claim(stores, nonce: "\(seed)-\(step)"))
                        model.claimed(leases[leases.count - 1].fence)
                    }
                    // Now and then of an earlier claim.
                    let lease = random.chance(85) ? leases[leases.count - 1] : random.pick(leases)
                    let holder = Int.random(in: 0...1, using: &random)
                    numbers[holder] += Int.random(in: 0...3, using: &random)
                    let deed = HolderModel.Deed.random(&random, isLate: step > 150)
                    let name = "seed \(seed), step \(step), holder \(holder), write \(numbers[holder]): \(deed)"
                    let answer = try await Self.act(deed, stores[holder], lease, write: numbers[holder])
                    #expect(answer == model.act(deed, lease.fence, write: numbers[holder]), "\(name)")
                    let fields = try await fixture.snapshot(job).fields
                    #expect(model.stored == HolderModel.Stored(fields), "\(name)")
                }
                let end = try await fixture.snapshot(job)
                expectTruthful(try await recorder.events(job, upTo: end.seq), end, "seed \(seed)")
                #expect(try await fixture.redis.send(["XLEN", "headway:{0}:ended"]).int == 1, "seed \(seed)")
                #expect(try await fixture.store.logs(job, limit: 1000).map(\.text) == model.lines, "seed \(seed)")
                #expect(try await fixture.findings() == [], "seed \(seed)")
            }
        }
    }

    private static func act(_ deed: HolderModel.Deed, _ store: JobStore, _ lease: Lease, write: Int) async throws -> HolderModel.Answer {
        switch deed {
        case .advance(let tenths):
            do {
                return .advance(try await store.advance(lease, write: write, to: state(tenths: tenths)))
            } catch {
                return .refused(error.code)
            }
        case .heartbeat: return .lease(try await store.heartbeat(lease))
        case .log:
            let line = LogLine(stream: "stderr", text: "\(lease.fence) \(write)")
            return .lease(try await store.appendLog(lease, write: write, [line], droppedBefore: 0))
        case .finish(let end): return .finish(try await store.finish(lease, as: end, resultJSON: nil, stagesMs: []))
        case .fail(let isRecoverable):
            let error = JobError(code: "x", message: "y", isRecoverable: isRecoverable)
            return .fail(try await store.fail(lease, error: error, stagesMs: []))
        case .release: return .lease(try await store.release(lease))
        case .askToCancel:
            _ = try await store.cancel(lease.job, by: request.by, reason: request.reason)
            return .none
        }
    }

    // MARK: At once

    enum End: CaseIterable, Sendable {
        case complete, cancelled, failed, handedBack
    }

    struct Told: Sendable {
        /// The number of the job's state after each write that was taken.
        var seqs: [Int] = []
        var isHeld: [Bool] = []
        var isEndAccepted = false
    }

    @Test func ofTwoEndsAtOnceOneIsTheEnd() async throws {
        try await Self.with { fixture, stores in
            let pairs = End.allCases.flatMap { one in End.allCases.map { (one, $0) } }
            let jobs = try (0..<3 * pairs.count).map { try fixture.job("job-\($0)") }
            try await EventRecorder.listening(fixture, to: jobs) { recorder in
                for (seed, job) in jobs.enumerated() {
                    let ends = pairs[seed % pairs.count]
                    let name = "seed \(seed), \(ends)"
                    _ = try await fixture.submit(job.text)
                    let lease = try await Self.claim(stores, nonce: "n\(seed)")
                    async let first = Self.work(stores[0], lease, ends.0, seed: 2 * seed, writes: 1)
                    async let second = Self.work(stores[1], lease, ends.1, seed: 2 * seed + 1, writes: 2)
                    let told = try await [first, second]
                    for one in told {
                        #expect(one.seqs == one.seqs.sorted(), "\(name): \(one.seqs)")
                        let heard = one.isHeld
                        #expect(heard == heard.filter { $0 } + heard.filter { !$0 }, "\(name): who was told `lost` was told `held` later")
                    }
                    let accepted = told.filter(\.isEndAccepted).count
                    // The same end twice cannot be told from a repetition.
                    #expect(accepted == (ends.0 == ends.1 ? 2 : 1), "\(name)")
                    let was = told[0].isEndAccepted ? ends.0 : ends.1
                    try await Self.expectOneEnd(fixture, job, was, stores, recorder, name)
                }
                #expect(try await fixture.redis.send(["XLEN", "headway:{0}:ended"]).int == jobs.count)
                #expect(try await fixture.findings() == [])
            }
        }
    }

    /// Some writes and then the end; the numbers of the writes are odd or even.
    private static func work(_ store: JobStore, _ lease: Lease, _ end: End, seed: Int, writes first: Int) async throws -> Told {
        var random = SeededGenerator(seed)
        var told = Told()
        var tenths = 0
        for write in 0..<Int.random(in: 5...25, using: &random) {
            // Later than the other's by up to a lot: writes with lower numbers come after those with higher ones.
            tenths = min(999, max(0, tenths + Int.random(in: -30...80, using: &random)))
            switch Int.random(in: 0..<4, using: &random) {
            case 0: told.isHeld.append(try await store.heartbeat(lease) != .lost)
            case 1:
                let line = LogLine(stream: "stderr", text: "x")
                told.isHeld.append(try await store.appendLog(lease, write: nil, [line], droppedBefore: 0) != .lost)
            default:
                // A phase that the other has left is refused, and changes nothing.
                guard let answer = try? await store.advance(lease, write: first + 2 * write, to: state(tenths: tenths)) else { continue }
                if case .accepted(let seq, _, _) = answer { told.seqs.append(seq) }
                told.isHeld.append(answer != .lost)
            }
        }
        switch end {
        case .complete: told.isEndAccepted = try await store.finish(lease, as: .complete, resultJSON: nil, stagesMs: []) == .done
        case .cancelled: told.isEndAccepted = try await store.finish(lease, as: .cancelled, resultJSON: nil, stagesMs: []) == .done
        case .failed:
            let error = JobError(code: "x", message: "y", isRecoverable: false)
            told.isEndAccepted = try await store.fail(lease, error: error, stagesMs: []) == .dead
        case .handedBack: told.isEndAccepted = try await store.release(lease) == .held
        }
        return told
    }

    private static func expectOneEnd(
        _ fixture: StoreFixture,
        _ job: JobID,
        _ end: End,
        _ stores: [JobStore],
        _ recorder: EventRecorder,
        _ name: String
    ) async throws {
        if end == .handedBack {
            #expect(try await fixture.snapshot(job).phase == .queued, "\(name)")
            let lease = try await claim(stores, nonce: "again-\(job)")
            #expect(try await stores[0].finish(lease, as: .complete, resultJSON: nil, stagesMs: []) == .done, "\(name)")
        }
        let snapshot = try await fixture.snapshot(job)
        let phases: [End: Phase] = [.complete: .complete, .cancelled: .cancelled, .failed: .failed, .handedBack: .complete]
        #expect(snapshot.phase == phases[end], "\(name)")
        expectTruthful(try await recorder.events(job, upTo: snapshot.seq), snapshot, name)
    }
}
