import Glibc
import JobStore
import ProgressCore
import TestSupport
import Testing

@testable import WorkerRuntime

/// A worker with a real Redis and real processes.
@Suite(.timeLimit(.minutes(5))) struct WorkerTests {
    private static let fiveFastStages = """
        for s in image_loading shape_generation mesh_export; do echo "{\\"stage\\":\\"$s\\"}" >&3; done
        echo some output; echo hello > "$HEADWAY_OUTPUT_DIR/model.txt"
        echo '{"result":{"vertices":3}}' >&3
        """

    @Test func aJobRunsToItsEnd() async throws {
        try await WorkerFixture.with(script: Self.fiveFastStages) { fixture in
            let job = try await fixture.submit("a")
            let end = try await fixture.end(of: job)
            #expect(end.phase == .complete)
            #expect(
                end.fields["result"] == #"{"files":[{"name":"model.txt","bytes":6,"content_type":"text/plain"}],"vertices":3}"#
            )
            let milestones = try await fixture.store.milestones(job, after: 0)
            // The first state and the first stage may come as one or as two.
            var phases = milestones.map(\.phase)
            if phases.count == 6 { phases.remove(at: 1) }
            #expect(phases == [.queued, .analyzing, .generating, .postProcessing, .complete])
            #expect(end.body.contains(#""stages":{"image_loading":"#))
            #expect(try await fixture.store.logs(job, limit: 10).map(\.text) == ["some output"])
            // Without a gateway the results stay.
            #expect(Directories.entries(fixture.root + "/work/w1").count == 2)
            #expect(try await fixture.store.workers().map(\.id) == ["w1"])
            #expect(try await fixture.store.queueNames() == ["gpu"])
        }
    }

    @Test func severalJobsRunAtOnceAndInOrder() async throws {
        let script = "until [ -e \"$HEADWAY_OUTPUT_DIR/../../go\" ]; do sleep 0.05; done"
        try await WorkerFixture.with(script: script, concurrency: 3) { fixture in
            var jobs: [JobID] = []
            for index in 0..<6 { jobs.append(try await fixture.submit("j\(index)")) }
            try await eventually(within: .seconds(30), "three run") {
                try await fixture.store.workers().first?.jobs == ["j0", "j1", "j2"]
            }
            try touch(fixture.root + "/work/w1/go")
            for job in jobs { #expect(try await fixture.end(of: job).phase == .complete) }
            #expect(fixture.flaky.calls("finish").count == 6)
        }
    }

    @Test(arguments: [nil, FlakyStore.Fault.before, .after])
    func aLineIsWorkedOffWithoutAClaimPerJobAndNoneIsRunTwice(fault: FlakyStore.Fault?) async throws {
        // The first waits until all are there.
        let script = """
            until [ -e "$HEADWAY_OUTPUT_DIR/../../go" ]; do sleep 0.05; done; echo $HEADWAY_JOB_ID >> "$HEADWAY_OUTPUT_DIR/../../runs"
            """
        try await WorkerFixture.with(script: script) { fixture in
            let jobs = try await withAll(10) { try await fixture.submit("j\($0)") }
            if let fault { fixture.flaky.fail("finish", [fault, fault]) }
            try await eventually(within: .seconds(30), "the first runs") { try await fixture.snapshot(jobs[0]).fields["worker"] == "w1" }
            let before = fixture.flaky.calls("claim").count
            try touch(fixture.root + "/work/w1/go")
            for job in jobs {
                let end = try await fixture.end(of: job)
                #expect(end.phase == .complete && end.fields["attempt"] == "1")
            }
            #expect(readFile(fixture.root + "/work/w1/runs") == jobs.map { $0.text + "\n" }.joined())
            // Not one per job; the worker that then waits looks again now and then.
            #expect(fixture.flaky.calls("claim").count <= before + 4)
            #expect(fixture.flaky.calls("finish").count == (fault == nil ? 10 : 12))
        }
    }

    private func withAll(_ count: Int, _ make: (Int) async throws -> JobID) async throws -> [JobID] {
        var jobs: [JobID] = []
        for index in 0..<count { jobs.append(try await make(index)) }
        return jobs
    }

    @Test func ticksAreReportedAtTheConfiguredRate() async throws {
        let script = """
            echo '{"stage":"shape_generation","step":0,"steps":200}' >&3
            for i in $(seq 1 200); do echo "{\\"step\\":$i}" >&3; sleep 0.01; done
            """
        try await WorkerFixture.with(script: script, updatesPerSecond: 5) { fixture in
            let start = ContinuousClock.now
            let job = try await fixture.submit("a")
            try await fixture.end(of: job)
            let times = fixture.flaky.calls("advance").map(\.at)
            // How many are needed is the schedule's business; here only that they come, and not too fast.
            #expect(times.count >= 4)
            // The first state, the first stage and the last words come at once; the rest is paced.
            let atMost = 4 + ((times.last ?? start) - start) / .milliseconds(200)
            #expect(Double(times.count) <= atMost)
            #expect(fixture.flaky.calls("advance").map(\.detail) == (1...times.count).map(String.init))
        }
    }

    @Test func aCancelStopsTheGeneratorAndIsAcknowledged() async throws {
        let script = "echo $$ >\"$HEADWAY_OUTPUT_DIR/../../pid\"; echo '{\"stage\":\"shape_generation\"}' >&3; sleep 300"
        try await WorkerFixture.with(script: script) { fixture in
            let job = try await fixture.submit("a")
            try await fixture.reaches(job, "the stage") { $0.fields["stage"] == "shape_generation" }
            let text = try #require(readFile(fixture.root + "/work/w1/pid"))
            let pid = try #require(Int32(text.filter(\.isNumber)))
            #expect(isAlive(pid))
            #expect(try await fixture.store.cancel(job, by: "me", reason: "changed my mind") == .requested(first: true))
            #expect(try await fixture.end(of: job).phase == .cancelled)
            #expect(!isAlive(pid))
        }
    }

    @Test func aBarThatMovesByTheClockIsNoProgress() async throws {
        let script = """
            echo '{"stage":"shape_generation","step":1,"steps":9}' >&3
            until [ -e "$HEADWAY_OUTPUT_DIR/../../go" ]; do sleep 0.05; done
            echo '{"step":2}' >&3
            sleep 300
            """
        try await WorkerFixture.with(script: script) { fixture in
            func times(_ snapshot: JobSnapshot) -> (updated: Int, progress: Int)? {
                guard let updated = snapshot.fields["updated_at"].flatMap({ Int($0) }),
                    let progress = snapshot.fields["progress_at"].flatMap({ Int($0) })
                else { return nil }
                return (updated, progress)
            }
            let job = try await fixture.submit("a")
            try await fixture.reaches(job, "a write long after the words") {
                $0.fields["step"] == "1" && times($0).map { $0.updated - $0.progress >= 1500 } == true
            }
            let before = try #require(times(try await fixture.snapshot(job)))
            try touch(fixture.root + "/work/w1/go")
            try await fixture.reaches(job, "the next words") { $0.fields["step"] == "2" }
            let after = try #require(times(try await fixture.snapshot(job)))
            #expect(after.progress > before.updated)
            _ = try await fixture.store.cancel(job, by: "me", reason: nil)
            #expect(try await fixture.end(of: job).fields["progress_at"] == nil)
        }
    }

    @Test func aHintMakesACancelQuick() async throws {
        var settings = StoreSettings()
        settings.heartbeat = .seconds(60)
        settings.lease = .seconds(180)
        // The state does not change either, so that no progress reply carries the cancel.
        let script = "echo '{\"stage\":\"unknown to the pipeline\"}' >&3; sleep 300"
        try await WorkerFixture.with(script: script, settings: settings, hints: true) { fixture in
            let job = try await fixture.submit("a")
            try await fixture.reaches(job, "the stage") { $0.fields["stage"] != nil }
            try await eventually("the worker listens") {
                try await fixture.server.cli("PUBSUB", "NUMSUB", fixture.store.keys.workerHints("w1")).contains("1")
            }
            let start = ContinuousClock.now
            _ = try await fixture.store.cancel(job, by: "me", reason: nil)
            #expect(try await fixture.end(of: job).phase == .cancelled)
            #expect(ContinuousClock.now - start < .seconds(25))
        }
    }

    /// Nothing else carries the cancel: no hints, and no report but the first, so that no reply does.
    @Test func aLostHintCostsAtMostOneHeartbeat() async throws {
        var settings = StoreSettings()
        settings.heartbeat = .seconds(2)
        settings.lease = .seconds(60)
        let script = "trap 'touch \"$HEADWAY_OUTPUT_DIR/../../told\"; exit 1' TERM; sleep 300 & wait"
        try await WorkerFixture.with(script: script, settings: settings, updatesPerSecond: 0.01) { fixture in
            let job = try await fixture.submit("a")
            // In the moment after a heartbeat, which is the longest before the next.
            try await eventually("a heartbeat") { !fixture.flaky.calls("heartbeat").isEmpty }
            let beats = fixture.flaky.calls("heartbeat").count
            let reports = fixture.flaky.calls("advance").count
            #expect(try await fixture.store.cancel(job, by: "me", reason: nil) == .requested(first: true))
            let start = ContinuousClock.now
            try await eventually("the generator is told") { access(fixture.root + "/work/w1/told", F_OK) == 0 }
            // Less than a second heartbeat would take; what is above the first is for a busy machine.
            #expect(ContinuousClock.now - start < settings.heartbeat + .milliseconds(1500))
            #expect(fixture.flaky.calls("heartbeat").count <= beats + 1 && fixture.flaky.calls("advance").count == reports)
            #expect(try await fixture.end(of: job).phase == .cancelled)
        }
    }

    @Test func aFailureWithoutRetryIsFailed() async throws {
        try await WorkerFixture.with(script: "echo 'no CUDA device' >&2; exit 7") { fixture in
            let job = try await fixture.submit("a") { $0.maxAttempts = 1 }
            let end = try await fixture.end(of: job)
            #expect(end.phase == .failed)
            #expect(end.fields["error"]?.contains("generator_failed") == true)
            #expect(end.fields["error"]?.contains("no CUDA device") == true)
            #expect(try await fixture.store.logs(job, limit: 10).map(\.text) == ["no CUDA device"])
        }
    }

    @Test func aLineOnItsWayWhenTheGeneratorEndsIsWrittenOnce() async throws {
        try await WorkerFixture.with(script: "echo $$ >&2; exit 7") { fixture in
            fixture.flaky.fail("log", [.held])
            let job = try await fixture.submit("a") { $0.maxAttempts = 1 }
            try await eventually("the line is there") { try await fixture.store.logs(job, limit: 10).count == 1 }
            let line = try await fixture.store.logs(job, limit: 10)[0].text
            let pid = try #require(Int32(line))
            // Were the write cut off with the generator, it would be repeated.
            try await eventually("the generator is gone") { !isAlive(pid) }
            fixture.flaky.letGo()
            #expect(try await fixture.end(of: job).phase == .failed)
            #expect(try await fixture.store.logs(job, limit: 10).map(\.text) == [line])
        }
    }

    @Test(arguments: [FlakyStore.Fault.before, .after])
    func lastWordsWithoutAReplyAreWrittenOnce(_ fault: FlakyStore.Fault) async throws {
        let script = #"echo '{"stage":"shape_generation","step":7,"steps":9}' >&3; echo 'no CUDA device' >&2; exit 7"#
        try await WorkerFixture.with(script: script) { fixture in
            fixture.flaky.fail("log", [fault, fault, fault])
            fixture.flaky.fail("advance", [fault, fault])
            let job = try await fixture.submit("a") { $0.maxAttempts = 1 }
            let end = try await fixture.end(of: job)
            #expect(end.phase == .failed)
            #expect(end.fields["step"] == "7")
            #expect(end.fields["stage"] == "shape_generation")
            #expect(try await fixture.store.logs(job, limit: 10).map(\.text) == ["no CUDA device"])
        }
    }

    @Test func aFailureIsTriedAgain() async throws {
        let script = #"[ "$HEADWAY_ATTEMPT" = 2 ] || exit 1"#
        try await WorkerFixture.with(script: script) { fixture in
            let job = try await fixture.submit("a")
            let end = try await fixture.end(of: job)
            #expect(end.phase == .complete)
            #expect(end.fields["attempt"] == "2")
        }
    }

    @Test func oneThatHangsIsEndedByItsLimit() async throws {
        try await WorkerFixture.with(script: "trap '' TERM; sleep 300", grace: .milliseconds(200)) { fixture in
            let job = try await fixture.submit("a") {
                $0.maxRuntimeMs = 400
                $0.maxAttempts = 1
            }
            let end = try await fixture.end(of: job)
            #expect(end.phase == .failed)
            #expect(end.fields["error"]?.contains("\"timeout\"") == true)
        }
    }

    @Test func theTraceOfTheSubmitGoesOnInTheGenerator() async throws {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        try await WorkerFixture.with(script: #"echo "{\"result\":{\"trace\":\"$TRACEPARENT\"}}" >&3"#) { fixture in
            let job = try await fixture.submit("a") { $0.traceparent = trace }
            let end = try await fixture.end(of: job)
            #expect(end.fields["result"]?.contains("\"trace\":\"\(trace)\"") == true)
            #expect(end.body.contains("\"traceparent\":\"\(trace)\""))
        }
    }

    @Test func inputsWithoutAGatewayFailForGood() async throws {
        try await WorkerFixture.with(script: "exit 0") { fixture in
            let job = try await fixture.submit("a", params: #"{"inputs":[{"upload":"u1","name":"photo.jpg"}]}"#)
            let end = try await fixture.end(of: job)
            #expect(end.phase == .failed)
            #expect(end.fields["error"]?.contains("no_gateway") == true)
            #expect(end.fields["attempt"] == "1")
        }
    }

    // MARK: Lost replies

    @Test(arguments: ["claim", "advance", "heartbeat", "log", "finish"], [FlakyStore.Fault.before, .after])
    func aLostRequestOrReplyChangesNothing(verb: String, fault: FlakyStore.Fault) async throws {
        let script = """
            echo run >> "$HEADWAY_OUTPUT_DIR/../../runs"
            for s in image_loading shape_generation mesh_export; do echo "{\\"stage\\":\\"$s\\"}" >&3; echo $s; sleep 0.3; done
            """
        try await WorkerFixture.with(script: script) { fixture in
            // Its first claim must not be on the way already: it would take the job past the fault.
            try await eventually("an idle worker") { !fixture.flaky.calls("wait").isEmpty }
            fixture.flaky.fail(verb, [fault, fault])
            let job = try await fixture.submit("a")
            let end = try await fixture.end(of: job)
            #expect(end.phase == .complete)
            #expect(end.fields["attempt"] == "1")
            #expect(readFile(fixture.root + "/work/w1/runs") == "run\n")
            let phases = try await fixture.store.milestones(job, after: 0).map(\.phase)
            #expect(phases.first == .queued && phases.last == .complete)
            #expect(phases.contains(.analyzing) && phases.contains(.generating) && phases.contains(.postProcessing))
            if verb == "claim" {
                // Two lost ones and the one that was answered share a nonce; a claim of before the fault has another.
                let uses = Dictionary(grouping: fixture.flaky.calls("claim"), by: \.detail).mapValues(\.count)
                #expect(uses.values.max() == 3)
            }
        }
    }

    @Test func aLostReplyOfAFailureUsesNoSecondAttempt() async throws {
        try await WorkerFixture.with(script: "exit 1") { fixture in
            fixture.flaky.fail("fail", [.after, .before])
            let job = try await fixture.submit("a") { $0.maxAttempts = 1 }
            let end = try await fixture.end(of: job)
            #expect(end.phase == .failed)
            try await eventually("the repeats") { fixture.flaky.calls("fail").count == 3 }
            #expect(try await fixture.snapshot(job).seq == end.seq)
        }
    }

    // MARK: Redis away, lease lost

    @Test func theGeneratorGoesOnWhileRedisIsAway() async throws {
        let script = """
            for i in $(seq 1 30); do echo "{\\"stage\\":\\"shape_generation\\",\\"step\\":$i,\\"steps\\":30}" >&3; sleep 0.1; done
            """
        var settings = StoreSettings()
        settings.heartbeat = .milliseconds(200)
        settings.lease = .seconds(10)
        try await WorkerFixture.with(script: script, redis: .init(isDurable: true), settings: settings) { fixture in
            let job = try await fixture.submit("a")
            try await fixture.reaches(job, "some steps") { Int($0.fields["step"] ?? "") ?? 0 > 3 }
            fixture.server.kill()
            try await Task.sleep(for: .milliseconds(700))
            try await fixture.server.start()
            let end = try await fixture.end(of: job)
            #expect(end.phase == .complete)
            #expect(end.fields["attempt"] == "1")
        }
    }

    @Test func whoLostTheLeaseStopsAndWritesNothing() async throws {
        var settings = StoreSettings()
        settings.heartbeat = .milliseconds(100)
        settings.lease = .milliseconds(300)
        settings.reapInterval = .zero
        let script = "echo $$ >\"$HEADWAY_OUTPUT_DIR/../../pid-$HEADWAY_ATTEMPT\"; echo '{\"stage\":\"shape_generation\"}' >&3; sleep 300"
        try await WorkerFixture.with(script: script, settings: settings) { fixture in
            let job = try await fixture.submit("a")
            try await fixture.reaches(job, "the stage") { $0.fields["stage"] == "shape_generation" }
            fixture.flaky.setDown(true)
            // Another process reaps, and another worker takes the job.
            let claim: Claim = try await eventually(within: .seconds(10), "the second claim") {
                _ = try await fixture.store.reap(queue: "gpu")
                guard case .job(let claim) = try await fixture.store.claim(queue: "gpu", worker: "w2", nonce: "n2") else { return nil }
                return claim
            }
            #expect(claim.attempt == 2)
            let before = try await fixture.snapshot(job)
            fixture.flaky.setDown(false)
            let text = try #require(readFile(fixture.root + "/work/w1/pid-1"))
            let pid = try #require(Int32(text.filter(\.isNumber)))
            try await eventually("the first generator is gone") {
                _ = try await fixture.store.heartbeat(claim.lease)
                return !isAlive(pid)
            }
            let after = try await fixture.snapshot(job)
            #expect(after.seq == before.seq)
            #expect(after.body == before.body)
            #expect(fixture.flaky.calls("finish").isEmpty && fixture.flaky.calls("fail").isEmpty)
            _ = try await fixture.store.finish(claim.lease, as: .complete, resultJSON: nil, stagesMs: [])
        }
    }

    // MARK: Shutdown

    @Test func aShutdownLetsJobsFinish() async throws {
        let script = "echo '{\"stage\":\"shape_generation\"}' >&3; until [ -e \"$HEADWAY_OUTPUT_DIR/../../go\" ]; do sleep 0.02; done"
        try await WorkerFixture.with(script: script) { fixture in
            let job = try await fixture.submit("a")
            try await fixture.reaches(job, "the stage") { $0.fields["stage"] == "shape_generation" }
            let next = try await fixture.submit("b")
            fixture.worker.drain()
            try writeFile(fixture.root + "/work/w1/go", "")
            #expect(try await fixture.end(of: job).phase == .complete)
            #expect(try await fixture.snapshot(next).phase == .queued)
            try await eventually("the record is gone") { try await fixture.store.workers().isEmpty }
        }
    }

    @Test func whatDoesNotFinishInTimeIsHandedBack() async throws {
        let script = "echo '{\"stage\":\"shape_generation\"}' >&3; sleep 300"
        try await WorkerFixture.with(script: script, shutdownGrace: .milliseconds(200)) { fixture in
            let job = try await fixture.submit("a")
            try await fixture.reaches(job, "the stage") { $0.fields["stage"] == "shape_generation" }
            fixture.worker.enter(.stopping)
            try await fixture.reaches(job, "the queue again") { $0.phase == .queued }
            let snapshot = try await fixture.snapshot(job)
            #expect(snapshot.fields["attempt"] == "2")
            #expect(snapshot.fields["max_attempts"] == "4")
        }
    }

    @Test func anIdleWorkerStopsAtOnce() async throws {
        try await WorkerFixture.with(script: "true") { fixture in
            try await eventually("it waits for work") { !fixture.flaky.calls("wait").isEmpty }
            let start = ContinuousClock.now
            fixture.worker.drain()
            try await eventually("the record is gone") { try await fixture.store.workers().isEmpty }
            #expect(ContinuousClock.now - start < .seconds(25))
        }
    }
}
