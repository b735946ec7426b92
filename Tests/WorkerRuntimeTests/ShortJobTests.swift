import JobStore
import ProgressCore
import RedisLink
import Synchronization
import TestSupport
import Testing

@testable import WorkerRuntime

/// Work that runs inside the worker, on the loop of its connection, as a test says.
private struct InPlaceBackend: GeneratorBackend {
    let usesFiles = false
    let mayBlock = false
    let work: @Sendable (BackendJob, BackendEvents) async throws -> Void

    func run(job: BackendJob, events: BackendEvents) async throws -> BackendResult {
        try await work(job, events)
        return BackendResult(resultJSON: "{\"ran\":true}")
    }
}

private func stage(_ name: String) -> BackendEvent {
    var update = ProgressUpdate()
    update.stage = name
    return .progress(update)
}

/// Jobs that begin in place and have nothing around them at first: what they then get, and when.
@Suite(.timeLimit(.minutes(3))) struct ShortJobTests {
    @Test func jobsThatEndAtOnceCostTheirEndAlone() async throws {
        let ran = Mutex<[String]>([])
        let backend = InPlaceBackend { job, _ in ran.withLock { $0.append(job.id.text) } }
        try await WorkerFixture.with(backend: backend, change: { $0.queues = ["gpu"] }) { fixture in
            let names = (0..<40).map { "short\($0)" }
            for name in names { _ = try await fixture.submit(name) }
            for name in names {
                let job = try #require(JobID(name))
                let snapshot = try await fixture.end(of: job)
                #expect(snapshot.phase == .complete && snapshot.fields["attempt"] == "1")
                #expect(snapshot.fields["result"] == "{\"files\":[],\"ran\":true}")
            }
            #expect(ran.withLock { $0.sorted() } == names.sorted())
            #expect(fixture.flaky.calls("finish").count == names.count)
            #expect(fixture.flaky.calls("advance").isEmpty && fixture.flaky.calls("heartbeat").isEmpty)
        }
    }

    /// The first words come before the work has returned even once.
    @Test func theFirstWordsAreWrittenAtOnce() async throws {
        let isSeen = Mutex(false)
        let backend = InPlaceBackend { _, events in
            events.send(stage("shape_generation"))
            while !isSeen.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(2)) }
        }
        try await WorkerFixture.with(backend: backend) { fixture in
            let job = try await fixture.submit("a")
            try await fixture.reaches(job, "the stage") { $0.fields["stage"] == "shape_generation" }
            isSeen.withLock { $0 = true }
            #expect(try await fixture.end(of: job).phase == .complete)
        }
    }

    /// Words said just before the end, when no reporter has begun.
    @Test func theLastWordsAreWritten() async throws {
        let backend = InPlaceBackend { _, events in
            events.send(.log(stream: "script", text: "only this"))
            var update = ProgressUpdate()
            (update.step, update.steps) = (7, 9)
            events.send(.progress(update))
        }
        try await WorkerFixture.with(backend: backend) { fixture in
            let job = try await fixture.submit("a")
            let snapshot = try await fixture.end(of: job)
            #expect(snapshot.phase == .complete)
            #expect(fixture.flaky.calls("log").count == 1 && fixture.flaky.calls("advance").count == 1)
        }
    }

    @Test func aSilentJobKeepsItsLease() async throws {
        var settings = StoreSettings()
        settings.heartbeat = .milliseconds(100)
        settings.lease = .milliseconds(400)
        settings.reapInterval = .zero
        let backend = InPlaceBackend { _, _ in try await Task.sleep(for: .milliseconds(1500)) }
        try await WorkerFixture.with(backend: backend, settings: settings) { fixture in
            let job = try await fixture.submit("a")
            let snapshot = try await eventually(within: .seconds(20), "the end") { () -> JobSnapshot? in
                // As another process would, all the time.
                _ = try await fixture.store.reap(queue: "gpu")
                let snapshot = try await fixture.snapshot(job)
                return snapshot.phase.isTerminal ? snapshot : nil
            }
            #expect(snapshot.phase == .complete && snapshot.fields["attempt"] == "1")
            #expect(fixture.flaky.calls("heartbeat").count >= 5)
        }
    }

    @Test(arguments: [3, 300]) func whatRunsLongerThanItMayIsStopped(runtimeMs: Int) async throws {
        let backend = InPlaceBackend { _, _ in try await Task.sleep(for: .seconds(60)) }
        try await WorkerFixture.with(backend: backend) { fixture in
            let job = try await fixture.submit("a") { ($0.maxRuntimeMs, $0.maxAttempts) = (runtimeMs, 1) }
            let snapshot = try await fixture.end(of: job)
            #expect(snapshot.phase == .failed)
            #expect(snapshot.fields["error"]?.contains("\"timeout\"") == true)
        }
    }

    /// The hint alone: a heartbeat by itself would take longer than the test may.
    @Test func aHintCancelsAtOnce() async throws {
        var settings = StoreSettings()
        settings.heartbeat = .seconds(100)
        settings.lease = .seconds(400)
        let backend = InPlaceBackend { _, _ in try await Task.sleep(for: .seconds(300)) }
        try await WorkerFixture.with(backend: backend, settings: settings, hints: true) { fixture in
            let job = try await fixture.submit("a")
            try await fixture.reaches(job, "a worker") { $0.phase != .queued }
            // The subscription may come up later than the job: a hint that nobody heard is given again.
            let hints = fixture.store.keys.workerHints("w1")
            _ = try await fixture.store.cancel(job, by: "ann", reason: nil)
            try await eventually(within: .seconds(20), "the end") {
                _ = try await fixture.store.redis.send(["PUBLISH", .string(hints), .string(job.text)])
                return try await fixture.snapshot(job).phase == .cancelled
            }
        }
    }

    /// A claim whose reply comes after the drain began: its job is handed back before it began.
    @Test func whatIsClaimedInTheMomentOfADrainGoesBack() async throws {
        let runs = Mutex(0)
        let backend = InPlaceBackend { _, _ in runs.withLock { $0 += 1 } }
        try await WorkerFixture.with(backend: backend) { fixture in
            try await eventually("the worker waits") { !fixture.flaky.calls("wait").isEmpty }
            let claims = fixture.flaky.calls("claim").count
            fixture.flaky.fail("claim", [.held])
            let job = try await fixture.submit("a")
            try await eventually("a claim") { fixture.flaky.calls("claim").count > claims }
            try await fixture.reaches(job, "the claim") { $0.fields["worker"] == "w1" }
            fixture.worker.drain()
            fixture.flaky.letGo()
            try await eventually("the job is back") { !fixture.flaky.calls("release").isEmpty }
            #expect(runs.withLock { $0 } == 0)
            #expect(try await fixture.snapshot(job).phase == .queued)
        }
    }

    /// Every change of stage rings the reporter's bell; without Redis that is no reason to try more often.
    @Test func withoutRedisAChangeOfStageIsNoNewTry() async throws {
        let changes = 150
        let isDown = Mutex(false)
        let isOver = Mutex(false)
        let backend = InPlaceBackend { _, events in
            events.send(stage("first"))
            while !isDown.withLock({ $0 }) { try await Task.sleep(for: .milliseconds(2)) }
            for number in 0..<changes {
                events.send(stage("stage \(number)"))
                try await Task.sleep(for: .milliseconds(5))
            }
            isOver.withLock { $0 = true }
        }
        try await WorkerFixture.with(backend: backend) { fixture in
            let job = try await fixture.submit("a")
            try await fixture.reaches(job, "the first stage") { $0.fields["stage"] == "first" }
            fixture.flaky.setDown(true)
            let before = fixture.flaky.calls("advance").count
            isDown.withLock { $0 = true }
            try await eventually(within: .seconds(20), "all changes") { isOver.withLock { $0 } }
            let tries = fixture.flaky.calls("advance").count - before
            // The pauses double from a hundredth of a second at the least.
            #expect(tries < 20, "\(tries) tries in \(changes) changes")
            fixture.flaky.setDown(false)
            #expect(try await fixture.end(of: job).phase == .complete)
        }
    }
}
