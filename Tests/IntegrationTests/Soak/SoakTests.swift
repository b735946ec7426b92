import Glibc
import JobStore
import Logging
import NIOCore
import NIOPosix
import ProgressCore
import RedisLink
import Synchronization
import TestSupport
import Testing

/// Thousands of jobs through workers that are killed, frozen and cut off, by a seeded schedule; and afterwards every one of them
/// is accounted for.
///
/// The short form is two thousand jobs; `SOAK_SECONDS` (`make soak`) makes it last that long. `SOAK_SEED` repeats a run as far as the
/// machine allows: the schedule is the same, its own timing is not.
@Suite(.serialized, .timeLimit(.minutes(60))) struct SoakTests {
    private static func number(_ name: String) -> Int? { getenv(name).flatMap { Int(String(cString: $0)) } }

    @Test func everyJobEndsOnceWhateverBecomesOfItsWorkers() async throws {
        let seed = Self.number("SOAK_SEED") ?? Int.random(in: 0...999_999)
        print("soak seed \(seed)")
        var settings = StoreSettings()
        settings.lease = SoakWorker.lease
        settings.cancelGrace = .seconds(3)
        settings.reapInterval = .milliseconds(200)
        try await Deployment.with(settings: settings) { deployment in
            let soak = try await Soak(deployment, seed: seed, seconds: Self.number("SOAK_SECONDS").flatMap { $0 > 0 ? $0 : nil })
            do {
                try await soak.run()
            } catch {
                Issue.record("seed \(seed): \(error)")
            }
        }
    }
}

/// One run.
final class Soak: Sendable {
    struct State {
        var accepted: [JobID] = []
        var isOver = false
        /// Why a worker's place gave up.
        var failure: (any Error)?
        var ended: [String: [String]] = [:]
        var cursor = "-"
        /// Processes that worked.
        var workers: [String] = []
    }

    private static let queue = "soak"
    static let queues = [queue] + FairQueue.all.map(\.name)
    private static let slots = 5
    /// Beside the 700 of the fair queues.
    private static let shortJobs = 1400
    /// Waiting and running jobs at once, at most.
    private static let backlog = 250
    static let tenants = ["ant", "bee", "cat", "dog"]

    let deployment: Deployment
    let seed: Int
    /// Nil: the short form.
    private let seconds: Int?
    let watcher = SoakWatcher()
    private let subscriber: RedisSubscriber
    let state = Mutex(State())

    var store: JobStore { deployment.store }

    init(_ deployment: Deployment, seed: Int, seconds: Int?) async throws {
        self.deployment = deployment
        self.seed = seed
        self.seconds = seconds
        subscriber = RedisSubscriber(
            configuration: deployment.redis.configuration(),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            logger: .quiet,
            delegate: watcher
        )
        try await store.registerQueues(Self.queues)
    }

    func run() async throws {
        let troubles = try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await self.subscriber.run() }
            group.addTask { try await self.reap() }
            group.addTask { try await self.readEnded() }
            let troubles = try await work()
            group.cancelAll()
            return troubles
        }
        try await check()
        let attempts = state.withLock { $0.accepted }.map { watcher.trace($0.text)?.attempt ?? 0 }
        print(
            "soak seed \(seed): \(attempts.count) jobs, \(attempts.count { $0 > 1 }) tried again, \(watcher.eventCount) events; "
                + troubles.sorted { $0.value > $1.value }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
        )
        #expect(attempts.contains { $0 > 1 }, "seed \(seed): no worker was ever lost")
    }

    /// Submits and cancels while the workers have their troubles; then waits for the last end.
    private func work() async throws -> [SoakWorker.Trouble: Int] {
        try await withThrowingTaskGroup(of: [SoakWorker.Trouble: Int].self) { group in
            for slot in 0..<Self.slots {
                group.addTask {
                    var worker = try await SoakWorker(
                        self.deployment,
                        slot: slot,
                        // A job comes along with an end only from the first queue of a worker: each is that for some.
                        queues: Array(Self.queues[(slot % Self.queues.count)...] + Self.queues[..<(slot % Self.queues.count)]),
                        seed: self.seed
                    )
                    do {
                        try await worker.run { self.state.withLock { $0.isOver } }
                    } catch {
                        self.state.withLock { $0.failure = error }
                        throw error
                    }
                    // It goes on, whole, until the last job has ended.
                    try await eventually(within: .seconds(180), "seed \(self.seed): every job ended: \(self.left)") { self.left.isEmpty }
                    self.state.withLock { $0.workers += worker.names }
                    return worker.troubles
                }
            }
            try await submitAll()
            try await submitFair()
            // The trouble goes on until these have ended too.
            try await progress("the fair queues are worked off") { self.left(named: FairQueue.all.flatMap(\.jobNames)).isEmpty }
            state.withLock { $0.isOver = true }
            var all: [SoakWorker.Trouble: Int] = [:]
            for try await troubles in group { all.merge(troubles) { $0 + $1 } }
            return all
        }
    }

    /// Accepted jobs without an end, a few of them by name.
    private var left: String {
        let accepted = state.withLock { $0.accepted }
        guard watcher.endedCount < accepted.count else { return "" }
        let names = left(named: accepted.map(\.text))
        return "\(names.count) are left, \(names.prefix(5))"
    }

    private func left(named names: [String]) -> [String] { names.filter { watcher.trace($0)?.end == nil } }

    static func queue(of job: JobID) -> String { queues.dropFirst().first { job.text.hasPrefix($0 + "-") } ?? queue }

    /// Waits for something that the workers bring about, and no longer than they work.
    private func progress(_ what: String, _ condition: () -> Bool) async throws {
        try await eventually(within: .seconds(120), "seed \(seed): \(what)") {
            if let failure = self.state.withLock({ $0.failure }) { throw failure }
            return condition()
        }
    }

    // MARK: Submitting

    private func submitAll() async throws {
        var generator = SeededGenerator(seed)
        // To be cancelled when so many have been submitted; without a number, as soon as it runs.
        var doomed: [(at: Int?, job: JobID)] = []
        let start = ContinuousClock.now
        var count = 0
        while seconds.map({ ContinuousClock.now - start < .seconds($0) }) ?? (count < Self.shortJobs) {
            if count % 50 == 0 { try await listen(to: (count..<count + 50).map { "s\($0)" }) }
            let isDoomed = generator.chance(8)
            let job = try await submit(submission("s\(count)", isDoomed: isDoomed, &generator))
            if isDoomed { doomed.append((generator.chance(50) ? nil : count + Int.random(in: 0...60, using: &generator), job)) }
            func isDue(_ entry: (at: Int?, job: JobID)) -> Bool {
                entry.at.map { $0 <= count } ?? (watcher.trace(entry.job.text)?.rank ?? 0 > 0)
            }
            let due = doomed.filter(isDue).map(\.job)
            doomed.removeAll { due.contains($0.job) }
            for job in due { await cancel(job) }
            count += 1
            // All connections but the watcher's, as a server that is shut for a moment would.
            if count % 500 == 0 { _ = try? await store.redis.send(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]) }
            let accepted = count
            try await progress("the backlog shrinks") { accepted - self.watcher.endedCount < Self.backlog }
        }
        for entry in doomed { await cancel(entry.job) }
    }

    private func submission(_ name: String, isDoomed: Bool, _ generator: inout SeededGenerator) throws -> JobSubmission {
        let failures = generator.chance(10) ? (generator.chance(20) ? 2 : 1) : 0
        // What is to be cancelled takes longer, so that some of it is in a worker's hands then.
        let steps = Int.random(in: isDoomed ? 6...10 : 0...4, using: &generator)
        let params = """
            {"play":{"steps":\(steps),"delay_ms":\(Int.random(in: 0...60, using: &generator)),\
            "failures":\(failures),"hopeless":\(generator.chance(4))}}
            """
        let id = try #require(JobID(name))
        let owner = Owner("\(generator.pick(Self.tenants))/user")
        var job = JobSubmission(id: id, queue: Self.queue, pipeline: "generic", owner: owner, paramsJSON: params)
        job.priority = Int.random(in: 0...9, using: &generator)
        job.maxAttempts = Int.random(in: 2...6, using: &generator)
        if generator.chance(10) { job.delayMs = Int.random(in: 1...1500, using: &generator) }
        if generator.chance(5) {
            job.maxRuntimeMs = Int.random(in: 50...2000, using: &generator)
            // Each time that it runs too long its back-off doubles: at the end all would wait for one of these.
            job.maxAttempts = 2
        }
        return job
    }

    /// Repeats until it is answered: what may have happened before is found again by its id.
    private func submit(_ job: JobSubmission) async throws -> JobID {
        for _ in 0..<200 {
            do throws(StoreError) {
                _ = try await store.submit(job)
                state.withLock { $0.accepted.append(job.id) }
                return job.id
            } catch {
                guard error.code == .unavailable else { throw error }
                try await Task.sleep(for: .milliseconds(20))
            }
        }
        throw TestSupportError(.timedOut, "\(job.id) was not taken")
    }

    private func cancel(_ job: JobID) async { _ = try? await store.cancel(job, by: "soak", reason: "by chance") }

    private func listen(to names: [String]) async throws {
        try await subscriber.subscribe(names.compactMap { JobID($0) }.map { store.keys.live($0) }).get()
    }

    /// One tenant after the other, while nobody takes anything: all of them wait from the first claim on.
    private func submitFair() async throws {
        for queue in FairQueue.all {
            let weights = queue.tenants.map { QueueSetting.weightOf(tenant: $0.name, $0.weight) }
            try await store.configure(queue: queue.name, [.paused(true)] + weights)
            try await listen(to: queue.jobNames)
            for tenant in queue.tenants {
                for name in queue.jobNames(of: tenant) {
                    let id = try #require(JobID(name))
                    // Long enough to be in somebody's hands when that ends.
                    let params = "{\"play\":{\"steps\":1,\"delay_ms\":20,\"failures\":0,\"hopeless\":false}}"
                    let owner = Owner("\(tenant.name)/user")
                    var job = JobSubmission(id: id, queue: queue.name, pipeline: "generic", owner: owner, paramsJSON: params)
                    job.maxAttempts = 20
                    _ = try await submit(job)
                }
            }
        }
        for queue in FairQueue.all { try await store.configure(queue: queue.name, [.paused(false)]) }
    }

    // MARK: Beside it

    /// As a gateway does.
    private func reap() async throws {
        while !Task.isCancelled {
            for queue in Self.queues { _ = try? await store.reap(queue: queue) }
            try await Task.sleep(for: .milliseconds(250))
        }
    }

    /// The stream of ends, as an archive reads it: it keeps ten thousand.
    private func readEnded() async throws {
        while !Task.isCancelled {
            _ = try? await readEndedOnce()
            try await Task.sleep(for: .milliseconds(250))
        }
    }

    func readEndedOnce() async throws -> Int {
        let cursor = state.withLock { $0.cursor }
        let reply = try await store.redis.send(["XRANGE", "headway:{0}:ended", .string(cursor), "+", "COUNT", "1000"])
        for entry in reply.array ?? [] {
            guard let parts = entry.array, let id = parts[0].string, let fields = parts[1].array?.compactMap(\.string) else { continue }
            var byName: [String: String] = [:]
            for index in stride(from: 0, to: fields.count - 1, by: 2) { byName[fields[index]] = fields[index + 1] }
            let (job, phase) = (byName["job"] ?? "", byName["phase"] ?? "")
            state.withLock { state in
                state.ended[job, default: []].append(phase)
                state.cursor = "(\(id)"
            }
        }
        return reply.array?.count ?? 0
    }
}
