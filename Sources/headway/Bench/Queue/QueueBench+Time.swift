import Foundation
import JobStore
import ProgressCore
import RedisLink

/// The figures that are waits: for a start, for an answer, for another worker.
extension QueueBench {
    // MARK: Start

    /// One idle worker; jobs 30 to 70 ms apart; from the call of submit to the first line of the job.
    func startLatency() async throws {
        try redis.flush()
        let queue = unused("latency")
        let worker = try await workers.start(unused("worker"), queue: queue)
        let sent = try await trickle(Self.ids(scale.latencyJobs), queue: queue) { MachineClock.nanoseconds() }
        try await BenchWait.until(within: .seconds(30), "all jobs of \(queue) started") { worker.marks.count == sent.count }
        let timings = Self.timings(worker.marks, sent)
        await worker.stop()
        figures.add("submit to start, p50", timings.milliseconds(at: 0.5), "ms", .atMost(1.5))
        figures.add("submit to start, p99", timings.milliseconds(at: 0.99), "ms", .atMost(3))
        try await commandLatency()
    }

    /// The same with a command per job: `date` prints when it ran.
    private func commandLatency() async throws {
        let queue = unused("command")
        let worker = try await workers.start(unused("worker"), queue: queue, command: ["date", "+%s%N"])
        let sent = try await trickle(Self.ids(scale.latencyJobs / 2), queue: queue) { MachineClock.unixNanoseconds() }
        var timings = Timings()
        for (id, start) in sent {
            guard let job = JobID(id) else { continue }
            try await BenchWait.until(within: .seconds(30), "\(id) ended") { try await store.snapshot(job)?.phase.isTerminal == true }
            if let text = try await store.logs(job, limit: 1).first?.text, let time = Int(text) {
                timings.microseconds.append(Double(time - start) / 1000)
            }
        }
        await worker.stop()
        figures.add("submit to a command's first line, p50", timings.milliseconds(at: 0.5), "ms")
        figures.add("submit to a command's first line, p99", timings.milliseconds(at: 0.99), "ms")
    }

    /// Submits one after another with pauses; when each was sent.
    private func trickle(_ ids: [String], queue: String, clock: () -> Int) async throws -> [String: Int] {
        var sent: [String: Int] = [:]
        for id in ids {
            try await Task.sleep(for: .microseconds(Int.random(in: 30_000...70_000)))
            sent[id] = clock()
            try await submit(id, queue: queue)
        }
        return sent
    }

    private static func timings(_ marks: [MarkFile.Mark], _ sent: [String: Int]) -> Timings {
        var timings = Timings()
        for mark in marks where mark.kind == .start {
            if let start = sent[mark.job] { timings.microseconds.append(Double(mark.nanoseconds - start) / 1000) }
        }
        return timings
    }

    // MARK: Idle

    /// Several idle workers, each on a queue of its own: what they send, and how fast each starts the first job after that.
    func idle() async throws {
        try redis.flush()
        var idle: [(worker: BenchWorkers.Running, queue: String)] = []
        for _ in 0..<scale.idleWorkers {
            let queue = unused("idle")
            idle.append((try await workers.start(unused("worker"), queue: queue), queue))
        }
        // Start-up is over.
        try await Task.sleep(for: .seconds(2))
        let counter = try CommandCounter(redis, ignoring: Self.clientName)
        let start = MachineClock.nanoseconds()
        try await Task.sleep(for: .seconds(scale.idleSeconds))
        let counts = try await counter.stop()
        let seconds = Double(MachineClock.nanoseconds() - start) / 1e9
        let sent = Double(counts.values.reduce(0, +))
        figures.add("commands per second of an idle worker", sent / Double(idle.count) / seconds, "/s", .atMost(0.2))
        say(counts.sorted { $0.value > $1.value }.prefix(12).map { "\($0.key) \($0.value)" }.joined(separator: ", "))

        var timings = Timings()
        for (worker, queue) in idle {
            let id = Self.ids(1)[0]
            let sent = try await trickle([id], queue: queue) { MachineClock.nanoseconds() }
            try await BenchWait.until(within: .seconds(30), "\(worker.name) started its job") { !worker.marks.isEmpty }
            timings.microseconds += Self.timings(worker.marks, sent).microseconds
        }
        for (worker, _) in idle { await worker.stop() }
        figures.add("submit to start after \(scale.idleSeconds) s idle, p50", timings.milliseconds(at: 0.5), "ms", .atMost(1.5))
        figures.add("submit to start after \(scale.idleSeconds) s idle, p99", timings.milliseconds(at: 0.99), "ms", .atMost(3))
    }

    // MARK: Cancel

    /// From the call of cancel to the moment in which the work of a running job is told to stop.
    func cancelRunning() async throws {
        try redis.flush()
        let queue = unused("cancel")
        let worker = try await workers.start(unused("worker"), queue: queue)
        var timings = Timings()
        for id in Self.ids(max(10, scale.latencyJobs / 10)) {
            guard let job = JobID(id) else { continue }
            try await submit(id, queue: queue, params: "{\"play\":{\"steps\":1000,\"delay_ms\":50,\"failures\":0,\"hopeless\":false}}")
            try await BenchWait.until(within: .seconds(30), "\(id) runs") { worker.marks.contains { $0.job == id } }
            try await Task.sleep(for: .milliseconds(Int.random(in: 20...60)))
            let start = MachineClock.nanoseconds()
            _ = try await store.cancel(job, by: "bench", reason: nil)
            try await BenchWait.until(within: .seconds(30), "\(id) was stopped") {
                worker.marks.contains { $0.job == id && $0.kind == .stop }
            }
            let stop = worker.marks.first { $0.job == id && $0.kind == .stop }?.nanoseconds ?? start
            timings.microseconds.append(Double(stop - start) / 1000)
        }
        await worker.stop()
        figures.add("cancel of a running job, seen by its worker, p50", timings.milliseconds(at: 0.5), "ms")
        figures.add("cancel of a running job, seen by its worker, p99", timings.milliseconds(at: 0.99), "ms", .atMost(1000))
    }

    // MARK: Kill

    /// Two workers on each of several queues, at default settings; the one that runs the job is killed.
    func killed() async throws {
        guard scale.kills > 0 else { return }
        try redis.flush()
        let bench = (0..<scale.kills).map { _ in (queue: unused("kill"), id: Self.ids(1)[0]) }
        var seconds: [Double] = []
        try await withThrowingTaskGroup(of: Double.self) { group in
            for (index, trial) in bench.enumerated() {
                let names = [unused("worker"), unused("worker")]
                let (workers, store) = (workers, store)
                group.addTask {
                    try await Self.kill(workers, store, trial.queue, trial.id, names, afterMs: 700 + index * 1100)
                }
            }
            for try await value in group { seconds.append(value) }
        }
        for value in seconds { figures.add("runs again after kill -9 of its worker", value, "s", .none) }
        figures.add("runs again after kill -9 of its worker, longest", seconds.max() ?? .nan, "s", .atMost(30))
    }

    private static func kill(
        _ workers: BenchWorkers,
        _ store: JobStore,
        _ queue: String,
        _ id: String,
        _ names: [String],
        afterMs: Int
    ) async throws -> Double {
        let first = try await workers.start(names[0], queue: queue)
        let second = try await workers.start(names[1], queue: queue)
        let params = "{\"play\":{\"steps\":1000,\"delay_ms\":100,\"failures\":0,\"hopeless\":false}}"
        _ = try await store.submit(try submission(id, queue: queue, params: params))
        try await BenchWait.until(within: .seconds(30), "\(id) runs") { !first.marks.isEmpty || !second.marks.isEmpty }
        try await Task.sleep(for: .milliseconds(afterMs))
        let (victim, heir) = first.marks.isEmpty ? (second, first) : (first, second)
        let start = MachineClock.nanoseconds()
        victim.kill()
        try await BenchWait.until(within: .seconds(90), "\(id) runs again") { !heir.marks.isEmpty }
        let again = heir.marks.first?.nanoseconds ?? start
        heir.kill()
        return Double(again - start) / 1e9
    }

    // MARK: Depth

    /// Position and cancel of waiting jobs, with ever more of them.
    func depths() async throws {
        try redis.flush()
        let queue = unused("depth")
        var ids: [String] = []
        for depth in scale.depths {
            for batch in 0..<5 {
                // Cancelled jobs leave the line: they are replaced, so that each batch finds the depth that it says.
                let more = Self.ids(depth - ids.count)
                _ = try await submitAll(more, queue: queue, depth: 64)
                ids += more
                if batch == 0 { ids.shuffle() }
                let victims = Array(ids.prefix(Self.cancelled))
                try await timings(victims, among: ids, of: depth, queue: queue)
                ids.removeFirst(victims.count)
            }
        }
    }

    /// Cancels of one batch, of which the p99 is the fifth from the top.
    private static let cancelled = 500

    /// - Parameter victims: the jobs to cancel.
    private func timings(_ victims: [String], among ids: [String], of depth: Int, queue: String) async throws {
        var (ping, position, cancel) = (Timings(), Timings(), Timings())
        for _ in victims {
            guard let id = ids.randomElement(), let job = JobID(id) else { continue }
            _ = try await ping.time { try await store.redis.send(["PING"]) }
            let place = try await position.time { try await store.position(job, queue: queue) }
            guard place != nil else { throw CommandError(.failed, "\(id) has no place in the line") }
        }
        for id in victims {
            guard let job = JobID(id) else { continue }
            guard try await cancel.time({ try await store.cancel(job, by: "bench", reason: nil) }) == .cancelled else {
                throw CommandError(.failed, "\(id) was not cancelled")
            }
        }
        let name = "with \(depth) queued, p99"
        figures.add("a bare round trip \(name)", ping.milliseconds(at: 0.99), "ms")
        figures.add("position \(name)", position.milliseconds(at: 0.99), "ms", .atMost(0.5))
        figures.add("cancel \(name)", cancel.milliseconds(at: 0.99), "ms", .atMost(0.5))
    }
}
