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
/// The short form is a thousand jobs; `SOAK_SECONDS` (`make soak`) makes it last that long. `SOAK_SEED` repeats a run as far as the
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
    private struct State {
        var accepted: [JobID] = []
        var isOver = false
        /// Why a worker's place gave up.
        var failure: (any Error)?
        var ended: [String: [String]] = [:]
        var cursor = "-"
    }

    private static let queue = "soak"
    private static let fairQueue = "fair"
    private static let slots = 4
    private static let shortJobs = 1000
    /// Waiting and running jobs at once, at most.
    private static let backlog = 250
    private static let tenants = ["ant", "bee", "cat", "dog"]

    private let deployment: Deployment
    private let seed: Int
    /// Nil: the short form.
    private let seconds: Int?
    private let watcher = SoakWatcher()
    private let subscriber: RedisSubscriber
    private let state = Mutex(State())

    private var store: JobStore { deployment.store }

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
        try await store.registerQueues([Self.queue, Self.fairQueue])
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
                        queues: [Self.queue, Self.fairQueue],
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
                    return worker.troubles
                }
            }
            try await submitAll()
            try await submitFair()
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
        let names = accepted.filter { watcher.trace($0.text)?.end == nil }.map(\.text)
        return "\(names.count) are left, \(names.prefix(5))"
    }

    // MARK: Submitting

    private func submitAll() async throws {
        var generator = SeededGenerator(seed)
        var doomed: [(at: Int, job: JobID)] = []
        let start = ContinuousClock.now
        var count = 0
        while seconds.map({ ContinuousClock.now - start < .seconds($0) }) ?? (count < Self.shortJobs) {
            if count % 50 == 0 { try await listen(to: (count..<count + 50).map { "s\($0)" }) }
            let job = try await submit(submission("s\(count)", &generator))
            if generator.chance(8) { doomed.append((count + Int.random(in: 0...60, using: &generator), job)) }
            for doomed in doomed where doomed.at == count { await cancel(doomed.job) }
            doomed.removeAll { $0.at <= count }
            count += 1
            // All connections but the watcher's, as a server that is shut for a moment would.
            if count % 500 == 0 { _ = try? await store.redis.send(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]) }
            let accepted = count
            try await eventually(within: .seconds(120), "seed \(seed): the backlog shrinks") {
                if let failure = self.state.withLock({ $0.failure }) { throw failure }
                return accepted - self.watcher.endedCount < Self.backlog
            }
        }
        for doomed in doomed { await cancel(doomed.job) }
    }

    private func submission(_ name: String, _ generator: inout SeededGenerator) throws -> JobSubmission {
        let failures = generator.chance(10) ? (generator.chance(20) ? 2 : 1) : 0
        let params = """
            {"play":{"steps":\(Int.random(in: 0...4, using: &generator)),"delay_ms":\(Int.random(in: 0...60, using: &generator)),\
            "failures":\(failures),"hopeless":\(generator.chance(4))}}
            """
        let id = try #require(JobID(name))
        let owner = Owner("\(generator.pick(Self.tenants))/user")
        var job = JobSubmission(id: id, queue: Self.queue, pipeline: "generic", owner: owner, paramsJSON: params)
        job.priority = Int.random(in: 0...9, using: &generator)
        job.maxAttempts = Int.random(in: 2...6, using: &generator)
        if generator.chance(10) { job.delayMs = Int.random(in: 1...1500, using: &generator) }
        if generator.chance(5) { job.maxRuntimeMs = Int.random(in: 50...2000, using: &generator) }
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

    /// Two tenants of one weight, one after the other, while nobody takes anything.
    private func submitFair() async throws {
        try await store.configure(queue: Self.fairQueue, [.paused(true)])
        let names = ["one", "two"].flatMap { tenant in (0..<100).map { "\(tenant)-\($0)" } }
        try await listen(to: names)
        for name in names {
            let id = try #require(JobID(name))
            let owner = Owner("\(name.prefix(3))/user")
            var job = JobSubmission(id: id, queue: Self.fairQueue, pipeline: "generic", owner: owner, paramsJSON: "{}")
            job.maxAttempts = 20
            _ = try await submit(job)
        }
        try await store.configure(queue: Self.fairQueue, [.paused(false)])
    }

    // MARK: Beside it

    /// As a gateway does.
    private func reap() async throws {
        while !Task.isCancelled {
            for queue in [Self.queue, Self.fairQueue] { _ = try? await store.reap(queue: queue) }
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

    private func readEndedOnce() async throws -> Int {
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

    // MARK: The account

    private func check() async throws {
        while try await readEndedOnce() > 0 {}
        let (accepted, ended) = state.withLock { ($0.accepted, $0.ended) }
        let violations = watcher.violations
        #expect(violations.isEmpty, "seed \(seed): \(violations.count) violations, first \(violations.prefix(3))")
        #expect(ended.count == accepted.count, "seed \(seed): \(ended.count) ends of \(accepted.count) jobs in the stream")
        var wrong: [String] = []
        for job in accepted {
            guard let trace = watcher.trace(job.text), let end = trace.end, let snapshot = try await store.snapshot(job) else {
                wrong.append("\(job): no end")
                continue
            }
            if ended[job.text] != [end.rawValue] { wrong.append("\(job): \(end) to its watcher, \(ended[job.text] ?? []) in the stream") }
            if snapshot.phase != end || snapshot.seq != trace.seq { wrong.append("\(job): \(end) to its watcher, \(snapshot.phase) kept") }
            if let finisher = trace.finisher, finisher.worker != snapshot.fields["worker"] {
                wrong.append("\(job): finished by \(finisher.worker), which had lost it to \(snapshot.fields["worker"] ?? "nobody")")
            }
        }
        #expect(wrong.isEmpty, "seed \(seed): \(wrong.count) jobs, first \(wrong.prefix(3))")
        try await checkPlaces(accepted)
        let audit = try await store.audit(AuditOptions(fix: false))
        #expect(audit.isClean && audit.jobs == accepted.count, "seed \(seed): \(audit.findings.prefix(3).map(\.message))")
        try await checkFairness(accepted)
    }

    /// Nothing stands in any line, and the counters add up.
    private func checkPlaces(_ accepted: [JobID]) async throws {
        for status in try await store.queues() where [Self.queue, Self.fairQueue].contains(status.name) {
            #expect(status.ready + status.delayed + status.running == 0, "seed \(seed): \(status)")
            let reply = try await store.redis.send(["HGETALL", .string("headway:{0}:queue:\(status.name):meta")])
            let meta = Self.hash(reply)
            let ends = ["complete", "failed", "cancelled"].reduce(0) { $0 + (Int(meta[$1] ?? "0") ?? 0) }
            let mine = accepted.count { $0.text.hasPrefix("s") == (status.name == Self.queue) }
            #expect(Int(meta["submitted"] ?? "") == mine && ends == mine, "seed \(seed): \(mine) jobs, counted \(meta)")
            #expect(try await store.redis.send(["ZCARD", .string("headway:{0}:queue:\(status.name):deadlines")]).int == 0)
            for tenant in Self.tenants + ["one", "two"] {
                let counts = Self.hash(
                    try await store.redis.send(["HGETALL", .string("headway:{0}:queue:\(status.name):tenant:\(tenant)")])
                )
                #expect((counts["queued"] ?? "0") == "0" && (counts["running"] ?? "0") == "0", "seed \(seed): \(tenant) \(counts)")
            }
        }
    }

    private static func hash(_ reply: RESPValue) -> [String: String] {
        let flat = (reply.array ?? []).map { $0.string ?? "" }
        var out: [String: String] = [:]
        for index in stride(from: 0, to: flat.count - 1, by: 2) { out[flat[index]] = flat[index + 1] }
        return out
    }

    /// While both waited, neither tenant was given more than its turns: one job, and what can be claimed within one millisecond, which
    /// is as exactly as the first start of a job is kept.
    private func checkFairness(_ accepted: [JobID]) async throws {
        var starts: [(at: Int, isOne: Bool)] = []
        for job in accepted where !job.text.hasPrefix("s") {
            let fields = try await store.snapshot(job, fields: ["started_at"])?.fields
            starts.append((try #require(Int(fields?["started_at"] ?? "")), job.text.hasPrefix("one")))
        }
        starts.sort { $0.at < $1.at }
        var lead = 0
        var (one, two) = (0, 0)
        for start in starts {
            if start.isOne { one += 1 } else { two += 1 }
            if one < 100, two < 100 { lead = max(lead, abs(one - two)) }
        }
        #expect(lead <= 1 + Self.slots * 3, "seed \(seed): one tenant was \(lead) jobs ahead")
    }
}
