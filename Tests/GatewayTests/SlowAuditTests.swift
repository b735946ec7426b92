import JobStore
import ProgressCore
import RedisLink
import Telemetry
import TestSupport
import Testing

@testable import Gateway

@Suite(.timeLimit(.minutes(2))) struct SlowAuditTests {
    /// A line is lost, and nobody asks: the gateway finds and mends it by itself.
    @Test func aGatewayMendsWhatSweepsCannotSee() async throws {
        let often = Change<GatewayConfiguration> {
            $0.limits.auditInterval = .milliseconds(200)
            $0.limits.auditConfirm = .milliseconds(10)
            $0.limits.auditPause = .zero
        }
        try await GatewayFixture.with(often) { fixture in
            let job = try #require(JobID("a"))
            _ = try await fixture.store.submit(
                JobSubmission(id: job, queue: "gpu", pipeline: "generic", owner: .anonymous, paramsJSON: "{}")
            )
            _ = try await fixture.store.redis.send(["DEL", "headway:{0}:queue:gpu:ready"])
            try await eventually(within: .seconds(60), "the job is back in its line") {
                try await fixture.store.position(job, queue: "gpu") == 0
            }
            try await eventually(within: .seconds(60), "it is counted") { fixture.registry.counter(.auditRepaired).value > 0 }
            #expect(fixture.registry.gauge(.auditFindings).value == 0)
        }
    }
}
