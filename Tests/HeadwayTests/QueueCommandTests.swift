import Glibc
import JobStore
import Logging
import NIOPosix
import ProgressCore
import RedisLink
import TestSupport
import Testing

@testable import headway

/// What operators do to queues, with the program as a process and a Redis of its own.
@Suite(.timeLimit(.minutes(5))) struct QueueCommandTests {
    private struct World: Sendable {
        let url: String
        let store: JobStore

        func run(_ arguments: String...) async throws -> Program.Outcome {
            try await Program.run(arguments + ["--redis", url])
        }

        func submit(_ id: String, change: (inout JobSubmission) -> Void = { _ in }) async throws -> JobID {
            let job = try #require(JobID(id))
            var submission = JobSubmission(id: job, queue: "gpu", pipeline: "generic", owner: Owner("acme/ann"), paramsJSON: "{}")
            change(&submission)
            _ = try await store.submit(submission)
            return job
        }

        func claim() async throws -> Lease {
            guard case .job(let claim) = try await store.claim(queue: "gpu", worker: "w", nonce: "\(UInt64.random(in: 0...UInt64.max))")
            else { throw TestSupportError(.timedOut, "nothing to claim") }
            return claim.lease
        }

        /// Submits a job that fails for good.
        func bury(_ id: String, code: String) async throws {
            _ = try await submit(id) { $0.priority = 9 }
            let error = JobError(code: code, message: "the \"card\" is full", isRecoverable: false)
            _ = try await store.fail(claim(), error: error, stagesMs: [])
        }

        func status() async throws -> QueueStatus { try #require(try await store.status(ofQueues: ["gpu"]).first) }
    }

    private func world(_ body: (World) async throws -> Void) async throws {
        let server = try await RedisServer.start()
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        let redis = RedisClient(
            configuration: server.configuration(),
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            logger: logger
        )
        let running = Task { try await redis.run() }  // ended below: a client lives as long as its test
        defer { running.cancel() }
        let store = JobStore(redis: redis, keys: Keys())
        _ = try await store.prepare()
        try await store.registerQueues(["gpu"])
        try await body(World(url: server.url, store: store))
    }

    @Test func aQueueIsPausedDrainedAndReleased() async throws {
        try await world { world in
            _ = try await world.submit("a")
            let paused = try await world.run("pause", "gpu")
            #expect(paused.exit == .status(0) && paused.output.hasPrefix("gpu: paused"), "\(paused.errors)")
            #expect(try await world.status().isPaused)
            #expect(try await world.run("drain", "gpu").exit == .status(0))
            #expect(try await world.status().isDraining)
            #expect(try await world.run("queues").output.contains("paused, draining"))
            #expect(try await world.run("resume", "gpu").exit == .status(0))
            #expect(try await world.run("drain", "gpu", "--off").output == "gpu: takes jobs again\n")
            let status = try await world.status()
            #expect(!status.isPaused && !status.isDraining)
            for verb in ["pause", "resume", "drain", "limits", "dead", "redrive"] {
                let outcome = try await world.run(verb, "cpu")
                #expect(outcome.exit == .status(2) && outcome.errors.contains("there is no queue 'cpu'; there are: gpu"), "\(verb)")
            }
        }
    }

    @Test func aDrainThatWaitsEndsWithTheLastJob() async throws {
        try await world { world in
            _ = try await world.submit("a")
            let lease = try await world.claim()
            let directory = try makeTemporaryDirectory(prefix: "hw-drain")
            defer { removeDirectory(directory) }
            let process = try TestSupport.ChildProcess(
                try Program.path(),
                ["drain", "gpu", "--wait", "--redis", world.url],
                outputPath: "\(directory)/out",
                errorPath: "\(directory)/err"
            )
            try await eventually(within: .seconds(60), "it says what is left") {
                try TextFile.read("\(directory)/err", limit: 1000).contains("gpu: 1 jobs are left")
            }
            #expect(process.exit == nil)
            _ = try await world.store.finish(lease, as: .complete, resultJSON: nil, stagesMs: [])
            #expect(try await process.waitForExit(within: .seconds(60)) == .status(0))
            #expect(try TextFile.read("\(directory)/out", limit: 1000) == "gpu: drained\n")
        }
    }

    @Test func limitsAreSetShownAndTakenAway() async throws {
        try await world { world in
            let set = try await world.run("limits", "gpu", "--max-depth", "7", "--max-running", "3", "--tenant-max-running", "2")
            #expect(set.exit == .status(0) && set.lines.first == "max_depth           7", "\(set.output)\(set.errors)")
            let own = try await world.run("limits", "gpu", "--tenant", "a:b", "--weight", "3", "--max-queued", "9", "--json")
            #expect(
                own.output == "{\"queue\":\"gpu\",\"max_depth\":7,\"max_running\":3,\"tenant_max_queued\":null,\"tenant_max_running\":2,"
                    + "\"tenants\":{\"a:b\":{\"weight\":3,\"max_queued\":9,\"max_running\":null}}}\n"
            )
            let limits = try await world.status().limits
            #expect(limits.maxRunning == 3 && limits.tenants["a:b"]?.maxQueued == 9)
            #expect(try await world.run("queues", "--json").output.contains("\"max_depth\":7"))
            let gone = try await world.run("limits", "gpu", "--max-depth", "none", "--tenant", "a:b", "--weight", "none")
            #expect(gone.lines.first == "max_depth           none")
            for wrong in [
                ["--max-depth", "-1"], ["--max-depth", "x"], ["--weight", "2"], ["--tenant", "a/b", "--weight", "2"],
                ["--tenant", "a", "--weight", "241"],
            ] {
                #expect(try await Program.run(["limits", "gpu", "--redis", world.url] + wrong).exit == .status(2), "\(wrong)")
            }
            #expect(try await world.status().limits.maxDepth == nil)
        }
    }

    @Test func purgesNeedAYesAndTellHowMany() async throws {
        try await world { world in
            for id in ["a", "b"] { _ = try await world.submit(id) }
            _ = try await world.submit("later") { $0.delayMs = 3_600_000 }
            try await world.bury("dead", code: "x")
            let asked = try await world.run("purge", "gpu", "--ready")
            #expect(asked.exit == .status(2) && asked.errors.contains("--yes"), "\(asked.errors)")
            #expect(try await world.run("purge", "gpu", "--yes").exit == .status(2))
            #expect(try await world.status().ready == 2)
            let done = try await world.run("purge", "gpu", "--ready", "--dead", "--yes")
            #expect(done.output == "gpu: 2 ready jobs cancelled\ngpu: 1 dead letters forgotten\n", "\(done.errors)")
            let status = try await world.status()
            #expect(status.ready == 0 && status.dead == 0 && status.delayed == 1)
            #expect(try await world.store.snapshot(try #require(JobID("a")))?.phase == .cancelled)
        }
    }

    @Test func deadLettersAreShownAndTriedAgainOnce() async throws {
        try await world { world in
            for (id, code) in [("d1", "oom"), ("d2", "timeout"), ("d3", "oom")] { try await world.bury(id, code: code) }
            let list = try await world.run("dead", "gpu")
            #expect(list.lines.count == 4 && list.output.contains("the \"card\" is full"), "\(list.output)\(list.errors)")
            #expect(try await world.run("dead", "gpu", "--json", "--limit", "1").output.hasPrefix("[{\"job\":\"d1\",\"finished_at\":1"))

            _ = try await world.store.configure(queue: "gpu", [.draining(true)])
            let drained = try await world.run("redrive", "gpu")
            #expect(drained.exit == .status(1) && drained.errors.contains("--off"), "\(drained.errors)")
            _ = try await world.store.configure(queue: "gpu", [.draining(false), .maxDepth(1)])
            // The second is refused by the limit, and stays a dead letter.
            let full = try await world.run("redrive", "gpu", "--code", "oom")
            #expect(full.exit == .status(1) && full.lines.count == 1 && full.output.hasPrefix("d1 -> "), "\(full.output)\(full.errors)")
            #expect(try await world.status().dead == 2)
            _ = try await world.store.configure(queue: "gpu", [.maxDepth(nil)])
            let rest = try await world.run("redrive", "gpu", "--code", "oom")
            #expect(rest.exit == .status(0) && rest.output.hasPrefix("d3 -> "))
            let one = try await world.run("redrive", "gpu", "--job", "d2", "--job", "nobody", "--json")
            #expect(one.exit == .status(4) && one.output.hasPrefix("{\"job\":\"d2\",\"retried_as\":\""))
            let status = try await world.status()
            #expect(status.dead == 0 && status.ready == 3)
            #expect(try await world.run("redrive", "gpu").errors.contains("no such dead letters"))
        }
    }

    @Test func anAuditEndsAsItsFindings() async throws {
        try await world { world in
            _ = try await world.submit("a")
            let clean = try await world.run("audit")
            #expect(clean.exit == .status(0) && clean.errors.contains("all is well") && clean.output.isEmpty, "\(clean.output)")
            _ = try await world.store.redis.send(["DEL", "headway:{0}:queue:gpu:ready"])
            let found = try await world.run("audit")
            #expect(found.exit == .status(1) && found.output.contains("waits_nowhere: the job a waits and stands in no line\n"))
            let fixed = try await world.run("audit", "--fix", "--json")
            #expect(fixed.exit == .status(0) && fixed.output.contains("\"repaired\":true"), "\(fixed.output)")
            #expect(try await world.claim().job.text == "a")
        }
    }
}
