import JobStore
import NIOCore
import ProgressCore
import Testing

@testable import Gateway

/// What watchers of waiting jobs are told, over the whole hub in memory.
struct HubPlaceTests {
    private let job = HubWorld.job("a")

    private func watch(_ client: TestClient, _ jobs: [JobID]) {
        let names = jobs.map { "\"\($0)\"" }.joined(separator: ",")
        client.send("{\"op\":\"watch\",\"jobs\":[\(names)],\"id\":1}")
    }

    @Test func placesInLineAreToldWhenTheyChange() {
        let world = HubWorld()
        world.redis.write(job, .milestone, phase: .queued)
        world.redis.jobs[job]?.place = .inLine(ahead: 3)
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 3000)
        world.redis.jobs[job]?.place = .inLine(ahead: 0)
        world.advance(ms: 1100)
        let late = world.webSocket()
        watch(late, [job])
        world.advance(ms: 100)
        world.redis.write(job, .milestone, phase: .analyzing)
        world.advance(ms: 3000)
        #expect(client.types(of: job) == ["phase", "queue", "queue", "phase"])
        #expect(client.events(of: job)[1].json["queue_position"] == .integer(3))
        #expect(client.events(of: job)[2].json["queue_ahead"] == .integer(0))
        #expect(late.types(of: job) == ["phase", "queue", "phase"])
    }

    @Test func aHeldJobSaysWhoHoldsIt() {
        let world = HubWorld()
        world.redis.write(job, .milestone, phase: .queued)
        world.redis.jobs[job]?.place = .heldByTenantLimit(ownAhead: 2)
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 3000)
        world.redis.jobs[job]?.place = .inLine(ahead: 4)
        world.advance(ms: 1100)
        #expect(client.types(of: job) == ["phase", "queue", "queue"])
        let held = client.events(of: job)[1].json
        #expect(held["held_by"] == .string("tenant_limit") && held["own_ahead"] == .integer(2) && held["queue_position"] == nil)
        let inLine = client.events(of: job)[2].json
        #expect(inLine["queue_position"] == .integer(4) && inLine["held_by"] == nil && inLine["own_ahead"] == nil)
    }

    @Test func waitsAreToldWithThePlace() {
        let world = HubWorld()
        world.redis.write(job, .milestone, phase: .queued)
        world.redis.jobs[job]?.place = .inLine(ahead: 1)
        world.redis.frames["gpu"] = WaitFrame(lines: [.init(reason: .noWorker)])
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 3000)
        func say(_ ms: Int) {
            world.redis.frames["gpu"] = WaitFrame(lines: [
                .init(places: [.wait(ms: 0, lowMs: 0, highMs: 0), .wait(ms: ms, lowMs: ms / 2, highMs: ms * 2)])
            ])
        }
        for ms in [40_000, 39_000, 38_000, 20_000] {
            say(ms)
            world.advance(ms: 1000)
        }
        let told = client.events(of: job).map(\.json)
        #expect(client.types(of: job) == ["phase", "queue", "queue", "queue", "queue"])
        #expect(told[1]["reason"] == .string("no_worker") && told[1]["eta_ms"] == nil && told[1]["queue_position"] == .integer(1))
        #expect(told[2]["eta_ms"] == .integer(40_000) && told[2]["eta_low_ms"] == .integer(20_000) && told[2]["reason"] == nil)
        #expect(told[3]["eta_ms"] == .integer(38_000), "39 s is what clients count down to")
        #expect(told[4]["eta_ms"] == .integer(20_000) && told[4]["eta_high_ms"] == .integer(40_000))
        #expect(Set(world.redis.framesAsked) == ["gpu"])
    }

    /// A gateway whose watchers' jobs all run asks for no forecast.
    @Test func whoRunsIsNotForecast() {
        let world = HubWorld()
        world.redis.write(job, .milestone, phase: .generating)
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 5000)
        #expect(world.redis.framesAsked.isEmpty)
    }

    /// Groups and progress-only jobs stand in no line: nobody is asked again and again where they are.
    @Test func whatStandsInNoLineIsNotAskedFor() {
        let world = HubWorld()
        world.redis.write(job, .milestone, phase: .queued)
        world.redis.jobs[job]?.queue = Keys.heldQueue
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 5000)
        world.redis.write(job, .state, phase: .queued)
        world.advance(ms: 5000)
        #expect(client.types(of: job) == ["phase", "progress"])
        #expect(world.redis.placesAsked == 0)
        #expect(world.hub.intake.inLine.isEmpty)
    }
}
