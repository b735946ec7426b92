import JobStore
import NIOCore
import ProgressCore
import TestSupport
import Testing

@testable import WorkerRuntime

/// What workers learn from the jobs they finish, on a real Redis with real processes.
@Suite(.timeLimit(.minutes(3))) struct LearningTests {
    /// Stages that no pipeline lists, half a second each.
    private static let script = """
        for stage in one two; do
          for i in 1 2 3 4 5; do echo "{\\"stage\\":\\"$stage\\",\\"step\\":$i,\\"steps\\":5}" >&3; sleep 0.05; done
        done
        """

    @Test func aFinishedJobTeachesOnceAndLeavesATrace() async throws {
        try await WorkerFixture.with(script: Self.script) { fixture in
            let job = try await fixture.submit("a", change: { $0.pipeline = "script" })
            #expect(try await fixture.end(of: job).phase == .complete)
            // The lesson follows the end.
            try await eventually(within: .seconds(20), "the trace") { try await fixture.store.trace(job) != nil }
            let learned = try await fixture.store.statistics(pipeline: "script")
            #expect(learned.jobs == 1)
            #expect(fixture.flaky.calls("learn").count == 1)
            let trace = try await fixture.store.trace(job) ?? ""
            #expect(trace.contains("\"name\":\"one\",\"units\":5") && trace.contains("\"name\":\"two\",\"units\":5"))
        }
    }

    /// Who submits, the pipeline, and last the job itself may say of what kind it is.
    @Test func aJobsClassIsWhatItIsLearnedUnder() async throws {
        let says = "case $HEADWAY_JOB_ID in own*) echo '{\"class\":\"big one\",\"cold\":true,\"items\":1}' >&3;; esac\n"
        try await WorkerFixture.with(script: says + Self.script) { fixture in
            let expected = [
                ("own", "\"wclass\":\"big one\",\"cold\":true"), ("own2", "\"wclass\":\"big one\",\"cold\":true"),
                ("told", "\"wclass\":\"small\",\"cold\":false"), ("plain", "\"wclass\":\"-\",\"cold\":false"),
            ]
            for (name, trace) in expected {
                let job = try await fixture.submit(
                    name,
                    change: {
                        $0.pipeline = "script"
                        if name != "plain" { ($0.jobClass, $0.isCold) = ("small", false) } else { $0.isCold = false }
                    }
                )
                try await fixture.end(of: job)
                let found = try await eventually(within: .seconds(60), "the trace", produce: { try await fixture.store.trace(job) })
                #expect(found.contains(trace), "\(name): \(found)")
            }
            let learned = try await fixture.store.statistics(pipeline: "script").exported(pipeline: "script")
            for key in ["s|one|big one|1", "s|one|small|0", "s|one|-|0"] { #expect(learned.contains(key), "\(learned)") }
        }
    }

    @Test func aFailedJobTeachesNothing() async throws {
        try await WorkerFixture.with(script: Self.script + "\nexit 1") { fixture in
            let job = try await fixture.submit("a", change: { $0.maxAttempts = 1 })
            #expect(try await fixture.end(of: job).phase == .failed)
            #expect(fixture.flaky.calls("learn").isEmpty)
            #expect(try await fixture.store.statistics(pipeline: "relief").jobs == 0)
        }
    }

    @Test func withoutStatisticsAJobRunsAllTheSame() async throws {
        try await WorkerFixture.with(script: Self.script) { fixture in
            fixture.flaky.fail("statistics", [.before])
            fixture.flaky.fail("learn", [.before])
            let job = try await fixture.submit("a")
            #expect(try await fixture.end(of: job).phase == .complete)
            try await eventually(within: .seconds(20), "the lesson was tried") { fixture.flaky.calls("learn").count == 1 }
        }
    }

    @Test func theSecondRunKnowsTheWay() async throws {
        try await WorkerFixture.with(script: Self.script) { fixture in
            let first = try await fixture.submit("a", change: { $0.pipeline = "script" })
            try await fixture.end(of: first)
            try await eventually(within: .seconds(20), "the lesson") {
                try await fixture.store.statistics(pipeline: "script").routes.first?.route.names == ["one", "two"]
            }
            let second = try await fixture.submit("b", change: { $0.pipeline = "script" })
            try await fixture.end(of: second)
            try await eventually(within: .seconds(20), "the second lesson") {
                try await fixture.store.statistics(pipeline: "script").jobs == 2
            }
            // Before its first word the second job has a forecast of its whole length, which the first could not have.
            let bodies = try await fixture.store.milestones(second, after: 0).map { String(buffer: $0.body) }
            #expect(bodies.contains { $0.contains("\"eta_ms\"") && $0.contains("\"stage\":\"one\"") })
        }
    }
}
