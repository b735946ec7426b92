import JobStore
import NIOCore
import ProgressCore
import Telemetry
import Testing

@testable import Gateway

/// What watchers are promised, one promise per test, over the whole hub in memory.
struct HubTests {
    private let job = HubWorld.job("a")

    private func watch(_ client: TestClient, _ jobs: [JobID], since: [String: Int] = [:]) {
        let names = jobs.map { "\"\($0)\"" }.joined(separator: ",")
        let cursors = since.map { "\"\($0.key)\":\($0.value)" }.joined(separator: ",")
        client.send("{\"op\":\"watch\",\"jobs\":[\(names)],\"since\":{\(cursors)},\"id\":1}")
    }

    @Test func theSnapshotComesFirstAndThenWhatIsNewer() {
        let world = HubWorld()
        for _ in 0..<3 { world.redis.write(job, .state, phase: .generating) }
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 10)
        world.redis.write(job, .milestone, phase: .postProcessing)
        world.redis.write(job, .terminal, phase: .complete)
        world.advance(ms: 10)
        #expect(client.events.map(\.type) == ["connected", "ack", "progress", "phase", "complete"])
        #expect(client.seqs(of: job) == [3, 4, 5])
    }

    @Test func bodiesReachTheSocketUntouched() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 10)
        world.redis.write(job, .state, phase: .generating)
        let body = world.redis.jobs[job]?.body
        world.advance(ms: 10)
        #expect(client.texts.last == body)
    }

    @Test func aCursorBringsTheMilestonesSince() {
        let world = HubWorld()
        for seq in 1...9 { world.redis.write(job, seq % 3 == 0 ? .milestone : .state, phase: .generating) }
        world.redis.write(job, .state, phase: .generating)
        let client = world.webSocket()
        watch(client, [job], since: ["a": 4])
        world.advance(ms: 10)
        #expect(client.seqs(of: job) == [6, 9, 10])
    }

    @Test func aCursorThatIsUpToDateBringsNothingOld() {
        let world = HubWorld()
        for _ in 1...5 { world.redis.write(job, .milestone, phase: .generating) }
        let client = world.webSocket()
        watch(client, [job], since: ["a": 5])
        world.advance(ms: 10)
        #expect(client.seqs(of: job) == [])
        world.redis.write(job, .state, phase: .generating)
        world.advance(ms: 10)
        #expect(client.seqs(of: job) == [6])
    }

    @Test func aCursorAheadOfHistoryIsToldSo() {
        let world = HubWorld()
        for _ in 1...3 { world.redis.write(job, .state, phase: .generating) }
        let client = world.webSocket()
        watch(client, [job], since: ["a": 40])
        world.advance(ms: 10)
        #expect(client.types(of: job) == ["reset", "progress"])
        #expect(client.seqs(of: job) == [3])
    }

    @Test func aLateWatcherGetsTheEndAlsoWithACursorAtIt() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        world.redis.write(job, .terminal, phase: .failed)
        for since in [[:], ["a": 1], ["a": 2]] {
            let client = world.webSocket()
            watch(client, [job], since: since)
            world.advance(ms: 10)
            #expect(client.types(of: job) == ["failed"])
        }
    }

    @Test func oneReadServesAHundredWatchersOfAJob() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        let clients = (0..<100).map { _ in world.webSocket(on: Int.random(in: 0...1)) }
        let before = world.redis.readCount
        for client in clients { watch(client, [job]) }
        world.advance(ms: 10)
        #expect(clients.allSatisfy { $0.seqs(of: job) == [1] })
        #expect(world.redis.readCount - before <= 2)
    }

    @Test func aLostMessageIsFilledAtTheNext() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 10)
        world.redis.weather.lost = 100
        world.redis.write(job, .milestone, phase: .generating)
        world.redis.write(job, .state, phase: .generating)
        world.redis.weather.lost = 0
        world.redis.write(job, .state, phase: .generating)
        world.advance(ms: 10)
        #expect(client.seqs(of: job) == [1, 2, 4])
        #expect(world.hub.metrics.gaps.value == 1)
    }

    @Test func aSilentlyDeadChannelShowsForAtMostTheStalenessBound() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 1000)
        world.redis.weather.lost = 100
        world.redis.write(job, .milestone, phase: .postProcessing)
        world.redis.write(job, .terminal, phase: .complete)
        world.advance(ms: 5500)
        #expect(client.seqs(of: job) == [1, 2, 3])
        #expect(client.types(of: job).last == "complete")
        #expect(world.hub.metrics.reconciled.value == 1)
    }

    @Test func aDeadLinkIsToldOnceAndHealsWithTheSnapshot() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        let client = world.webSocket(on: 1)
        watch(client, [job])
        world.advance(ms: 10)
        world.redis.killLink()
        world.advance(ms: 500)
        world.redis.write(job, .milestone, phase: .postProcessing)
        #expect(!world.hub.isLinkHealthy)
        let late = world.webSocket()
        watch(late, [job])
        world.advance(ms: 10)
        #expect(late.events.map(\.type).starts(with: ["connected", "degraded", "ack"]))
        world.redis.restoreLink()
        world.advance(ms: 50)
        #expect(client.events.map(\.type) == ["connected", "ack", "progress", "degraded", "phase", "degraded"])
        #expect(client.events[3].json["active"] == .bool(true))
        #expect(client.events[5].json["active"] == .bool(false))
        #expect(late.seqs(of: job) == [2])
        #expect(world.hub.isLinkHealthy)
    }

    @Test func historyThatWentBackGivesAResetAndTheTruth() {
        let world = HubWorld()
        for _ in 1...40 { world.redis.write(job, .state, phase: .generating) }
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 10)
        world.redis.killLink()
        world.redis.jobs[job]?.seq = 37
        world.redis.jobs[job]?.body = "{\"job\":\"a\",\"seq\":37,\"type\":\"progress\",\"phase\":\"GENERATING\"}"
        world.redis.restoreLink()
        world.advance(ms: 20)
        world.redis.write(job, .state, phase: .generating)
        world.advance(ms: 20)
        #expect(client.types(of: job) == ["progress", "reset", "progress", "progress"])
        #expect(client.seqs(of: job) == [40, 37, 38])
    }

    @Test func aStalledSocketCostsOneStateAndItsMilestones() throws {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 10)
        client.isReading = false
        for seq in 2...1000 { world.redis.write(job, seq % 250 == 0 ? .milestone : .state, phase: .generating) }
        world.redis.log(job)
        world.advance(ms: 10)
        let watcher = try #require(world.hub.intake.entries[job]?.links.first?.room.watchers.first)
        #expect(watcher.state.waitingCount == 4)
        client.isReading = true
        world.advance(ms: 10)
        #expect(client.seqs(of: job) == [1, 250, 500, 750, 1000])
        #expect(world.hub.metrics.droppedLossy.value == 1)
        world.redis.write(job, .state, phase: .generating)
        world.advance(ms: 10)
        #expect(client.seqs(of: job).last == 1001)
    }

    @Test func moreMilestonesThanAWatcherMayKeepComeFromRedis() {
        var limits = HubLimits()
        limits.milestonesPerWatcher = 4
        let world = HubWorld(limits: limits)
        world.redis.write(job, .state, phase: .generating)
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 10)
        client.isReading = false
        for _ in 2...30 { world.redis.write(job, .milestone, phase: .generating) }
        world.redis.write(job, .terminal, phase: .complete)
        world.advance(ms: 10)
        client.isReading = true
        world.advance(ms: 10)
        #expect(client.seqs(of: job) == Array(1...31))
        #expect(world.hub.metrics.resyncs.value == 1)
    }

    @Test func anUnknownJobIsWaitedForAndThenNotFound() {
        let world = HubWorld()
        let client = world.webSocket()
        watch(client, [job, HubWorld.job("b")])
        world.advance(ms: 30_000)
        world.redis.write(job, .milestone, phase: .queued)
        world.advance(ms: 31_000)
        #expect(client.types(of: job) == ["phase"])
        #expect(client.types(of: HubWorld.job("b")) == ["error"])
        #expect(client.texts.last?.contains("job_not_found") == true)
    }

    @Test func aForeignJobLooksLikeNone() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        world.redis.jobs[job]?.owner = Owner("acme/alice")
        let client = world.webSocket()
        let cursor = world.webSocket()
        watch(client, [job])
        watch(cursor, [job], since: ["a": 1])
        world.advance(ms: 1000)
        let reads = world.redis.readCount
        for _ in 0..<20 { world.redis.write(job, .state, phase: .generating) }
        world.advance(ms: 58_000)
        #expect(client.events(of: job).isEmpty)
        #expect(cursor.types(of: job) == ["gone"])
        #expect(world.redis.readCount - reads <= 4, "a foreign job's events are not a way to make the gateway read")
        world.advance(ms: 3000)
        #expect(client.texts.last?.contains("job_not_found") == true)
    }

    @Test func aJobThatExpiresWhileWatchedIsGone() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 10)
        world.redis.jobs[job] = nil
        world.advance(ms: 6000)
        #expect(client.types(of: job) == ["progress", "gone"])
        world.advance(ms: 10_000)
        #expect(world.redis.subscribed.isEmpty)
    }

    @Test func theLastWatcherTakesTheSubscriptionWithItAfterAMoment() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        let client = world.webSocket(on: 1)
        watch(client, [job])
        world.advance(ms: 10)
        client.send("{\"op\":\"unwatch\",\"jobs\":[\"a\"]}")
        world.advance(ms: 1000)
        #expect(world.redis.subscribed == ["live:a"])
        world.advance(ms: 2000)
        #expect(world.redis.subscribed.isEmpty)
        #expect(world.hub.intake.entries.isEmpty)
        watch(client, [job])
        world.advance(ms: 10)
        #expect(client.seqs(of: job) == [1, 1])
        client.leave()
        world.advance(ms: 3000)
        #expect(world.redis.subscribed.isEmpty)
    }

    @Test func aBigRoomIsServedInTurns() {
        var limits = HubLimits()
        limits.writesPerTurn = 16
        let world = HubWorld(loops: 1, limits: limits)
        world.redis.write(job, .state, phase: .generating)
        let clients = (0..<100).map { _ in world.webSocket() }
        for client in clients { watch(client, [job]) }
        world.advance(ms: 50)
        world.redis.write(job, .state, phase: .generating)
        world.settle()
        for client in clients { client.collect() }
        #expect(clients.filter { $0.seqs(of: job) == [1, 2] }.count == 16)
        // Somebody leaves in the middle of a round, in front of and behind the cursor.
        clients[3].leave()
        clients[90].leave()
        for _ in 0..<3 { world.redis.write(job, .milestone, phase: .generating) }
        world.advance(ms: 50)
        for (index, client) in clients.enumerated() where index != 3 && index != 90 {
            #expect(client.seqs(of: job) == [1, 2, 3, 4, 5], "client \(index)")
        }
    }

    @Test func jobsOverTheLimitAreRefusedOneByOne() {
        var limits = HubLimits()
        limits.jobs = 2
        let world = HubWorld(limits: limits)
        for name in ["a", "b", "c"] { world.redis.write(HubWorld.job(name), .state, phase: .generating) }
        let client = world.webSocket()
        watch(client, ["a", "b", "c"].map(HubWorld.job))
        world.advance(ms: 10)
        #expect(client.types(of: HubWorld.job("a")) == ["progress"])
        #expect(client.types(of: HubWorld.job("c")) == ["error"])
        #expect(client.texts.contains { $0.contains("too_many_jobs") })
    }

    @Test func readsThatFailAreRepeatedAndReported() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        world.redis.weather.failing = 100
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 5000)
        #expect(client.events.map(\.type) == ["connected", "ack", "degraded"])
        world.redis.weather.failing = 0
        world.advance(ms: 6000)
        #expect(client.seqs(of: job) == [1])
        #expect(client.events.filter { $0.type == "degraded" }.count == 2)
        #expect(world.redis.readCount < 40, "bounded backoff")
    }

    @Test func payloadsThatAreNoEventsAreCountedAndDropped() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        let client = world.webSocket()
        watch(client, [job])
        world.advance(ms: 10)
        for payload in ["", "x", "2" + String(repeating: "0", count: 30), String(repeating: "é", count: 40)] {
            world.redis.send("live:a", payload)
        }
        world.advance(ms: 10)
        #expect(world.hub.metrics.badPayloads.value == 4)
        #expect(client.seqs(of: job) == [1])
    }
}
