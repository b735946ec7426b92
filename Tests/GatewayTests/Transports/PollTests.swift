import JobStore
import NIOCore
import ProgressCore
import TestSupport
import Testing

@testable import Gateway

struct PollTests {
    private let job = HubWorld.job("a")

    /// What a poll answered, once it has.
    private final class Answer: @unchecked Sendable {
        // Safety: everything happens on the test's thread.
        var result: PollResult?
    }

    private func poll(_ world: HubWorld, after: Int, waitMs: Int64, principal: Principal = .anonymous) -> Answer {
        let answer = Answer()
        let promise = world.intakeLoop.makePromise(of: PollResult.self)
        promise.futureResult.whenSuccess { answer.result = $0 }
        world.hub.intake.poll(job, principal: principal, after: after, wait: .milliseconds(waitMs), promise: promise)
        return answer
    }

    private func seqs(_ answer: Answer) -> (state: Int, milestones: Int)? {
        if case .found(_, let head, let milestones)? = answer.result { (head.seq, milestones.count) } else { nil }
    }

    @Test func answersAtOnceWhenThereIsNews() {
        let world = HubWorld()
        for _ in 1...5 { world.redis.write(job, .milestone, phase: .generating) }
        let answer = poll(world, after: 2, waitMs: 1000)
        world.advance(ms: 20)
        #expect(seqs(answer)?.state == 5)
        #expect(seqs(answer)?.milestones == 3)
    }

    @Test func waitsForNewsOrForItsTime() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        let woken = poll(world, after: 1, waitMs: 5000)
        world.advance(ms: 100)
        #expect(woken.result == nil)
        world.redis.write(job, .milestone, phase: .postProcessing)
        world.advance(ms: 20)
        #expect(seqs(woken)?.state == 2)
        let patient = poll(world, after: 2, waitMs: 300)
        world.advance(ms: 200)
        #expect(patient.result == nil)
        world.advance(ms: 200)
        #expect(seqs(patient)?.state == 2)
        #expect(seqs(patient)?.milestones == 0)
        world.advance(ms: 5000)
        #expect(world.redis.subscribed.isEmpty)
    }

    /// Whatever is written between the reads of one answer: who goes on from the state it was given misses no milestone.
    @Test(arguments: 0..<200) func aClientThatPollsMissesNoMilestone(_ seed: UInt64) {
        let world = HubWorld(seed: seed)
        world.redis.weather.slowness = 40
        world.redis.write(job, .state, phase: .generating)
        var generator = SeededGenerator(seed: seed)
        var (after, seen): (Int, [Int]) = (0, [])
        var answer = poll(world, after: 0, waitMs: 60)
        for _ in 0..<400 {
            if generator.chance(30) { world.redis.write(job, generator.chance(50) ? .milestone : .state, phase: .generating) }
            world.advance(ms: 5)
            guard case .found(_, let head, let milestones)? = answer.result else { continue }
            seen += milestones.compactMap(seq)
            after = head.seq
            answer = poll(world, after: after, waitMs: 60)
        }
        #expect(seen.count > 20)
        #expect(seen == world.redis.jobs[job]?.milestones.map(\.seq).filter { $0 <= after })
    }

    private func seq(_ body: ByteBuffer) -> Int? {
        // `"seq":12,`
        String(buffer: body).split(separator: ",").first { $0.hasPrefix("\"seq\":") }.flatMap { Int($0.dropFirst(6)) }
    }

    @Test func tellsAbsenceApart() {
        let world = HubWorld()
        let gone = poll(world, after: 4, waitMs: 1000)
        let unknown = poll(world, after: 0, waitMs: 1000)
        world.advance(ms: 500)
        guard case .gone? = gone.result else { return #expect(Bool(false), "a cursor on an absent job is gone") }
        #expect(unknown.result == nil)
        world.advance(ms: 600)
        guard case .notFound? = unknown.result else { return #expect(Bool(false), "an absent job is not found") }
    }

    @Test func doesNotShowForeignJobs() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        world.redis.jobs[job]?.owner = Owner("acme/alice")
        let answer = poll(world, after: 0, waitMs: 100)
        world.advance(ms: 200)
        guard case .notFound? = answer.result else { return #expect(Bool(false), "a foreign job looks absent") }
    }

    @Test func isUnavailableWhenRedisIs() {
        let world = HubWorld()
        world.redis.write(job, .state, phase: .generating)
        world.redis.weather.failing = 100
        let answer = poll(world, after: 0, waitMs: 100)
        world.advance(ms: 3500)
        guard case .unavailable? = answer.result else { return #expect(Bool(false), "nothing could be read") }
    }

    @Test func soManyWaitAndNoMore() {
        var limits = HubLimits()
        limits.pollWaiters = 2
        let world = HubWorld(limits: limits)
        world.redis.write(job, .state, phase: .generating)
        let waiting = (0..<2).map { _ in poll(world, after: 1, waitMs: 1000) }
        world.advance(ms: 10)
        let third = poll(world, after: 1, waitMs: 1000)
        guard case .unavailable? = third.result else { return #expect(Bool(false), "the third has no place") }
        world.redis.write(job, .terminal, phase: .complete)
        world.advance(ms: 20)
        #expect(waiting.allSatisfy { $0.result != nil })
        world.advance(ms: 5000)
    }
}
