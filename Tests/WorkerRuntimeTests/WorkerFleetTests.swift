import JobStore
import ProgressCore
import Synchronization
import Telemetry
import TestSupport
import Testing

@testable import WorkerRuntime

/// Several real workers, or one with its record, its order of queues and its ways to end.
@Suite(.timeLimit(.minutes(5))) struct WorkerFleetTests {
    /// Runs until the test says so.
    private static let untilTold = "until [ -e \"$HEADWAY_OUTPUT_DIR/../../../go\" ]; do sleep 0.05; done"

    private func go(_ fleet: WorkerFleet) throws { try touch(fleet.root + "/work/go") }

    // MARK: The record

    @Test func theRecordTellsWhatTheWorkerIsAndDoes() async throws {
        try await WorkerFleet.with { fleet in
            let tool = fleet.root + "/nvidia-smi"
            try writeFile(tool, "#!/bin/sh\necho \"0, GPU-a, 143771, 1200, NVIDIA H200\"\necho \"1, GPU-b, 143771, [N/A], NVIDIA H200\"\n")
            fleet.start("w1", script: Self.untilTold) {
                $0.labels = ["sdxl"]
                $0.concurrency = 2
                $0.version = "9.9"
                $0.gpuTool = tool
            }
            try await fleet.record("w1", "its GPUs") {
                $0.gpus == [
                    .init(name: "NVIDIA H200", memoryMB: 143_771, memoryUsedMB: 1200),
                    .init(name: "NVIDIA H200", memoryMB: 143_771, memoryUsedMB: nil),
                ]
            }
            let job = try await fleet.submit("a")
            try await fleet.record("w1", "its job") { $0.jobs == ["a"] && $0.labels == ["sdxl"] && $0.version == "9.9" }
            try go(fleet)
            #expect(try await fleet.end(of: job).phase == .complete)
            try await fleet.record("w1", "its count") {
                $0.jobs == [] && $0.finished == 1 && $0.failed == 0 && $0.cpus > 0 && $0.memoryMB > 0
            }
        }
    }

    @Test func aGPUToolThatHangsHoldsNothingUp() async throws {
        try await WorkerFleet.with { fleet in
            let tool = fleet.root + "/nvidia-smi"
            try writeFile(tool, "#!/bin/sh\ntrap '' TERM\nsleep 300\n")
            let member = fleet.start("w1") { $0.gpuTool = tool }
            #expect(try await fleet.end(of: fleet.submit("a")).phase == .complete)
            member.worker.enter(.stopping)
            try await member.run.value
            #expect(member.hasEnded())
        }
    }

    // MARK: What it costs

    /// Times of a fiftieth, and as many commands: an idle worker asks once per block, once per registration, and no more.
    @Test func anIdleWorkerAsksForLittle() async throws {
        var settings = WorkerFleet.quick
        settings.lease = .milliseconds(400)
        settings.registration = .milliseconds(400)
        try await WorkerFleet.with(settings: settings) { fleet in
            let member = fleet.start("w1", hints: false)
            try await fleet.isBlocked(1)
            func calls() -> Int { ["claim", "wait", "register", "reap"].reduce(0) { $0 + member.store.calls($1).count } }
            let (start, before) = (ContinuousClock.now, calls())
            try await eventually(within: .seconds(120), "some rounds") { member.store.calls("wait").count > 8 }
            let took = (ContinuousClock.now - start).wholeMilliseconds
            // Blocks of 480 ms or more, records of 380 ms or more; one of each may have begun before.
            let most = took / 480 * 2 + took / 380 + 4
            #expect(calls() - before <= most, "\(calls() - before) calls in \(took) ms")
        }
    }

    // MARK: Draining

    @Test(arguments: [true, false])
    func aWorkerThatIsToldToDrainFinishesAndEnds(hints: Bool) async throws {
        var settings = WorkerFleet.quick
        // Without the hint the next registration brings the order.
        // The record, and the order in it, live three times as long: on a busy machine too, until then.
        settings.registration = hints ? .seconds(600) : .seconds(5)
        try await WorkerFleet.with(settings: settings) { fleet in
            let member = fleet.start("w1", script: Self.untilTold, hints: hints)
            if hints {
                try await eventually(within: .seconds(30), "the worker listens") {
                    try await fleet.server.cli("PUBSUB", "NUMSUB", fleet.store.keys.workerHints("w1")).contains("1")
                }
            }
            let job = try await fleet.submit("a")
            try await fleet.record("w1", "its job") { $0.jobs == ["a"] }
            #expect(try await fleet.store.drainWorker("w1"))
            try await eventually(within: .seconds(30), "it drains") { member.worker.isDraining }
            let next = try await fleet.submit("b")
            // It runs on for longer than the grace of a shutdown.
            try await Task.sleep(for: .milliseconds(300))
            #expect(try await fleet.snapshot(job).fields["worker"] == "w1")
            #expect(try await fleet.store.workers().first?.isDraining == true)
            try go(fleet)
            try await member.run.value
            #expect(try await fleet.snapshot(job).phase == .complete)
            #expect(try await fleet.snapshot(next).phase == .queued)
            #expect(try await fleet.store.workers().isEmpty)
        }
    }

    @Test func aShutdownEndsADrainThatTakesTooLong() async throws {
        try await WorkerFleet.with { fleet in
            let member = fleet.start("w1", script: Self.untilTold)
            let job = try await fleet.submit("a")
            try await fleet.record("w1", "its job") { $0.jobs == ["a"] }
            member.worker.drain()
            member.worker.enter(.stopping)
            try await member.run.value
            #expect(try await fleet.snapshot(job).phase == .queued)
        }
    }

    // MARK: Trouble with the command

    @Test func aWorkerWhoseCommandIsMissingDoesNotStart() async throws {
        try await WorkerFleet.with { fleet in
            let member = fleet.start("w1", command: ["no-such-program-anywhere"])
            let job = try await fleet.submit("a")
            do {
                try await member.run.value
                Issue.record("it started")
            } catch let error as WorkerError {
                #expect(error.code == .backend && error.message.contains("no-such-program-anywhere"))
            }
            #expect(try await fleet.snapshot(job).phase == .queued)
            #expect(try await fleet.store.workers().isEmpty)
        }
    }

    @Test func aCommandThatVanishesCostsNoAttempt() async throws {
        try await WorkerFleet.with { fleet in
            let program = fleet.root + "/generator"
            try writeFile(program, "#!/bin/sh\nexit 0\n")
            let member = fleet.start("w1", command: [program])
            #expect(try await fleet.end(of: fleet.submit("a")).phase == .complete)
            // An update of the program goes wrong.
            #expect(unlinkFile(program))
            let job = try await fleet.submit("b") { $0.maxAttempts = 1 }
            try await fleet.record("w1", "the reason") { $0.slowedReason?.contains("cannot run") == true && $0.slowedForMs > 0 }
            // While the command is missing nothing is claimed at all.
            let claims = member.store.calls("claim").count
            try await eventually(within: .seconds(30), "a few looks at the command") {
                member.metrics.exposition().contains("\nheadway_worker_slowed 1\n")
                    && member.worker.state.withLock { $0.crashLoop.pause }?.isForStart == true
            }
            #expect(member.store.calls("claim").count <= claims + 1)
            #expect(try await fleet.snapshot(job).phase == .queued)
            try writeFile(program, "#!/bin/sh\nexit 0\n")
            let end = try await fleet.end(of: job)
            #expect(end.phase == .complete)
            #expect(end.fields["error"] == nil)
            try await fleet.record("w1", "it is well again") { $0.slowedReason == nil && $0.failed == 0 }
            #expect(member.metrics.exposition().contains("\nheadway_worker_slowed 0\n"))
        }
    }

    @Test func aHealthyWorkerRunsWhatABrokenOneHandsBack() async throws {
        try await WorkerFleet.with { fleet in
            let program = fleet.root + "/generator"
            try writeFile(program, "#!/bin/sh\nexit 0\n")
            let broken = fleet.start("broken", command: [program])
            try await fleet.isBlocked(1)
            #expect(unlinkFile(program))
            let job = try await fleet.submit("a") { $0.maxAttempts = 1 }
            try await eventually(within: .seconds(30), "the hand-back") { !broken.store.calls("release").isEmpty }
            fleet.start("healthy", script: "true")
            let end = try await fleet.end(of: job)
            #expect(end.phase == .complete && end.fields["worker"] == "healthy")
        }
    }

    @Test func jobsThatFailAtOnceSlowTheWorkerDownUntilOneEndsWell() async throws {
        try await WorkerFleet.with { fleet in
            let member = fleet.start("w1", script: "[ -e \"$HEADWAY_OUTPUT_DIR/../../../go\" ]")
            // Enough of them for a pause that is longer than the time between two records.
            for index in 0..<8 { _ = try await fleet.submit("f\(index)") { $0.maxAttempts = 1 } }
            try await fleet.record("w1", "the reason") { $0.slowedReason?.contains("failed at once") == true }
            #expect(!member.metrics.exposition().contains("\nheadway_worker_slowdowns_total 0\n"))
            try go(fleet)
            #expect(try await fleet.end(of: fleet.submit("good")).phase == .complete)
            try await fleet.record("w1", "it is well again") { $0.slowedReason == nil && $0.finished >= 1 }
        }
    }

    @Test func aGeneratorThatRefusesItsInputIsNoCrashLoop() async throws {
        let script = "echo '{\"error\":{\"code\":\"bad_image\",\"message\":\"no\",\"recoverable\":false}}' >&3; exit 1"
        try await WorkerFleet.with { fleet in
            let member = fleet.start("w1", script: script)
            for index in 0..<8 {
                let job = try await fleet.submit("f\(index)")
                #expect(try await fleet.end(of: job).fields["error"]?.contains("bad_image") == true)
            }
            #expect(member.worker.state.withLock { $0.crashLoop.pause } == nil)
            #expect(!member.metrics.exposition().contains("\nheadway_worker_slowed 1\n"))
        }
    }

    // MARK: Order and preference

    @Test(arguments: [1, 2])
    func aLaterQueueWaitsForTheEarlierOnes(concurrency: Int) async throws {
        try await WorkerFleet.with { fleet in
            var jobs: [JobID] = []
            for index in 0..<4 {
                jobs.append(try await fleet.submit("low\(index)", queue: "low"))
                jobs.append(try await fleet.submit("high\(index)", queue: "high"))
            }
            let member = fleet.start("w1") {
                $0.queues = ["high", "low"]
                $0.concurrency = concurrency
            }
            for job in jobs { #expect(try await fleet.end(of: job).phase == .complete) }
            var started: [(job: String, fence: Int)] = []
            for job in jobs {
                let fence = try await fleet.snapshot(job).fields["claimed_at"].flatMap { Int($0) } ?? 0
                started.append((job.text, fence))
            }
            let lastHigh = started.filter { $0.job.hasPrefix("high") }.map(\.fence).max() ?? 0
            let firstLow = started.filter { $0.job.hasPrefix("low") }.map(\.fence).min() ?? 0
            #expect(lastHigh <= firstLow)
            // The later queue wakes it as well.
            try await eventually(within: .seconds(30), "it waits") { (member.store.calls("wait").count) > 0 }
            #expect(try await fleet.end(of: fleet.submit("alone", queue: "low")).phase == .complete)
        }
    }

    @Test func aJobGoesToTheWorkerWithItsLabelAndNothingStarves() async throws {
        try await WorkerFleet.with { fleet in
            // The one without the label has waited longer, so that it is the first to be woken.
            fleet.start("plain")
            try await fleet.isBlocked(1)
            let warm = fleet.start("warm") { $0.labels = ["sdxl"] }
            // A slow machine may take longer than the wish lasts; but taking turns, as without it, they would never come to six.
            var inARow = 0
            for index in 0..<100 where inARow < 6 {
                try await fleet.isBlocked(2)
                let job = try await fleet.submit("j\(index)") { $0.prefer = "sdxl" }
                inARow = try await fleet.end(of: job).fields["worker"] == "warm" ? inARow + 1 : 0
            }
            #expect(inARow == 6)
            // Nobody with the label is left: the wish is bounded.
            warm.worker.drain()
            try await warm.run.value
            let last = try await fleet.submit("last") { $0.prefer = "sdxl" }
            #expect(try await fleet.end(of: last).fields["worker"] == "plain")
        }
    }

    // MARK: Others that die

    /// Nobody but a worker that fell asleep before the job was claimed is there to see that its worker died: no gateway, no reaper.
    @Test func aSleepingWorkerFindsAJobWhoseWorkerDiedMeanwhile() async throws {
        try await WorkerFleet.with { fleet in
            // First in line for the wake-up: a worker that claims and dies.
            let victim = Task { try await fleet.store.waitForWork(queues: ["gpu"], atMost: .seconds(100)) }  // ends with its token
            try await fleet.isBlocked(1)
            let heir = fleet.start("heir", hints: false)
            try await fleet.isBlocked(2)
            let asleep = heir.store.calls("wait").count
            let job = try await fleet.submit("a")
            try await victim.value
            guard case .job(let claim) = try await fleet.store.claim(queue: "gpu", worker: "victim", nonce: "n") else {
                Issue.record("the heir was faster: it was not asleep")
                return
            }
            #expect(claim.attempt == 1 && heir.store.calls("wait").count == asleep)
            let end = try await fleet.end(of: job)
            #expect(end.phase == .complete && end.fields["worker"] == "heir" && end.fields["attempt"] == "2")
        }
    }

    @Test func aDelayedJobStartsThoughWhoKnewOfItIsBusy() async throws {
        try await WorkerFleet.with { fleet in
            fleet.start("first", script: Self.untilTold) { $0.queues = ["gpu", "other"] }
            try await fleet.isBlocked(1)
            fleet.start("second")
            try await fleet.isBlocked(2)
            // The first to be woken learns when it is due, and is busy then with a job of a queue of its own.
            let delayed = try await fleet.submit("delayed") { $0.delayMs = 3000 }
            _ = try await fleet.submit("long", queue: "other")
            let end = try await fleet.end(of: delayed)
            #expect(end.phase == .complete && end.fields["worker"] == "second")
            try go(fleet)
        }
    }
}
