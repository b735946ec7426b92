import Glibc
import JobStore
import NIOCore
import ProgressCore
import TestSupport
import Testing

@testable import Gateway

/// Seeded storms over the whole hub: whatever the channel, the link, the reads and the sockets do, each watcher sees order,
/// every milestone and exactly one end.
struct HubSimulationTests {
    private struct Watch {
        let client: TestClient
        let job: JobID
        let since: Int?
    }

    /// Ten seeds each; `HEADWAY_SIMULATION_BLOCKS=300` is the long form.
    private static let blocks = getenv("HEADWAY_SIMULATION_BLOCKS").flatMap { UInt64(String(cString: $0)) } ?? 12

    @Test(.timeLimit(.minutes(10)), arguments: 0..<blocks)
    func everyWatcherSeesTheTruthWhateverHappens(_ block: UInt64) throws {
        for seed in (block * 10 + 1)...(block * 10 + 10) { try simulate(seed: seed) }
    }

    private func simulate(seed: UInt64) throws {
        var dice = SeededGenerator(seed: seed &* 7919)
        var limits = HubLimits()
        limits.milestonesPerWatcher = Int.random(in: 1...6, using: &dice)
        limits.heldEvents = Int.random(in: 1...10, using: &dice)
        limits.outboxItems = Int.random(in: 2...40, using: &dice)
        limits.outboxMilestones = Int.random(in: 1...8, using: &dice)
        limits.writesPerTurn = Int.random(in: 1...8, using: &dice)
        limits.writeDeadline = .hours(1)
        limits.silence = .hours(1)
        let world = HubWorld(seed: seed, loops: 1 + Int(seed % 3), limits: limits)
        world.redis.weather = FakeRedis.Weather(
            lost: [0, 5, 30][Int.random(in: 0..<3, using: &dice)],
            copied: 5,
            late: [0, 30][Int.random(in: 0..<2, using: &dice)],
            slowness: [0, 20, 150][Int.random(in: 0..<3, using: &dice)],
            failing: [0, 10][Int.random(in: 0..<2, using: &dice)]
        )
        let jobs = (0..<Int.random(in: 1...4, using: &dice)).map { HubWorld.job("job-\($0)") }
        var watches: [Watch] = []
        var resets: Set<String> = []

        for _ in 0..<Int.random(in: 40...160, using: &dice) {
            let job = jobs.randomElement(using: &dice) ?? jobs[0]
            switch Int.random(in: 0..<100, using: &dice) {
            case 0..<50: step(job, world, &dice)
            case 50..<62: watch(job, world, &watches, &dice)
            case 62..<72:
                if let client = world.clients.randomElement(using: &dice) { client.isReading.toggle() }
            case 72..<75:
                if let client = world.clients.randomElement(using: &dice), dice.chance(50) { client.leave() }
            case 75..<79:
                if world.redis.isLinkUp { world.redis.killLink() } else { world.redis.restoreLink() }
            case 79..<80: rollBack(job, world, &resets, &dice)
            default: world.advance(ms: Int.random(in: 1...300, using: &dice))
            }
            for watcher in watchers(world) {
                #expect(watcher.state.waitingCount <= limits.milestonesPerWatcher + 2, "seed \(seed)")
            }
        }
        for job in jobs where !(world.redis.jobs[job]?.phase.isTerminal ?? true) {
            world.redis.write(job, .terminal, phase: .complete)
        }
        world.redis.weather = FakeRedis.Weather()
        world.redis.restoreLink()
        for client in world.clients { client.isReading = true }
        world.advance(ms: 70_000)
        for watch in watches where watch.client.isOpen || !watch.client.isWebSocket { check(watch, world, resets, seed) }
        #expect(world.hub.intake.entries.isEmpty, "seed \(seed): every subscription is given back")
    }

    private func watchers(_ world: HubWorld) -> [Watcher] {
        world.hub.intake.entries.values.flatMap { $0.links }.flatMap { Array($0.room.watchers) }
    }

    private func step(_ job: JobID, _ world: HubWorld, _ dice: inout SeededGenerator) {
        let phase = world.redis.jobs[job]?.phase
        if phase?.isTerminal ?? false { return }
        switch Int.random(in: 0..<20, using: &dice) {
        case 0: world.redis.write(job, .terminal, phase: dice.chance(50) ? .complete : .failed)
        case 1..<7: world.redis.write(job, .milestone, phase: phase == nil ? .queued : .generating)
        case 7: world.redis.log(job)
        default: world.redis.write(job, phase == nil ? .milestone : .state, phase: phase ?? .queued)
        }
        if dice.chance(70) { world.settle() }
    }

    private func watch(_ job: JobID, _ world: HubWorld, _ watches: inout [Watch], _ dice: inout SeededGenerator) {
        let seq = world.redis.jobs[job]?.seq ?? 0
        let since = dice.chance(40) && seq > 1 ? Int.random(in: 1...seq, using: &dice) : nil
        let loop = Int.random(in: 0..<3, using: &dice)
        if dice.chance(50) {
            let client = world.webSocket(on: loop)
            client.send("{\"op\":\"watch\",\"jobs\":[\"\(job)\"]" + (since.map { ",\"since\":{\"\(job)\":\($0)}" } ?? "") + "}")
            watches.append(Watch(client: client, job: job, since: since))
        } else {
            let client = world.eventStream([WatchRequest(job: job, since: since)], isMulti: dice.chance(30), on: loop)
            watches.append(Watch(client: client, job: job, since: since))
        }
    }

    /// A failover to a replica that lagged: the newest changes never happened.
    private func rollBack(_ job: JobID, _ world: HubWorld, _ resets: inout Set<String>, _ dice: inout SeededGenerator) {
        guard var state = world.redis.jobs[job], state.seq > 2, !state.phase.isTerminal else { return }
        resets.insert(job.text)
        state.seq -= Int.random(in: 1...min(3, state.seq - 1), using: &dice)
        state.body = "{\"job\":\"\(job)\",\"seq\":\(state.seq),\"type\":\"progress\",\"phase\":\"\(state.phase.rawValue)\",\"salt\":-1}"
        state.milestones.removeAll { $0.seq > state.seq }
        world.redis.jobs[job] = state
    }

    private func check(_ watch: Watch, _ world: HubWorld, _ resets: Set<String>, _ seed: UInt64) {
        guard let truth = world.redis.jobs[watch.job] else { return }
        let events = watch.client.events(of: watch.job).filter { $0.type != "queue" && $0.type != "log" }
        var floor = watch.since ?? 0
        var terminals = 0
        let isClosedEarly = !watch.client.isOpen && !events.contains { ["complete", "failed"].contains($0.type) }
        if isClosedEarly { return }
        for event in events {
            if event.type == "reset" {
                #expect(resets.contains(watch.job.text), "seed \(seed): reset of a history that never went back")
                floor = (event.seq ?? 0) - 1
                continue
            }
            guard let seq = event.seq else { continue }
            let isTerminal = ["complete", "failed"].contains(event.type)
            #expect(seq > floor || isTerminal, "seed \(seed): \(watch.job) \(seq) after \(floor) in \(events.map(\.seq))")
            #expect(terminals == 0, "seed \(seed): something follows the end")
            floor = seq
            if isTerminal { terminals += 1 }
        }
        #expect(terminals == 1, "seed \(seed): \(watch.job) \(watch.client.isWebSocket) ended \(terminals) times: \(events.map(\.type))")
        #expect(floor == truth.seq, "seed \(seed): ends at \(floor) of \(truth.seq)")
        guard !resets.contains(watch.job.text) else { return }
        let seen = Set(events.compactMap(\.seq))
        let first = watch.since ?? events.first?.seq ?? 0
        if let since = watch.since {
            #expect(!seen.contains(since) || events.last?.seq == since, "seed \(seed) since \(since): \(events.map { ($0.type, $0.seq) })")
        }
        let owed = truth.milestones.map(\.seq).filter { $0 > first }
        #expect(seen.isSuperset(of: owed), "seed \(seed): \(watch.job) since \(first): milestones \(owed) not all in \(seen.sorted())")
    }
}
