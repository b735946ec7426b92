import Foundation
import JobStore
import ProgressCore

/// One run of `headway bench queue`: what it needs and what it has found so far.
final class QueueBench {
    let redis: BenchRedis
    let store: JobStore
    let workers: BenchWorkers
    let scale: BenchScale
    let say: (String) -> Void
    var figures = Figures()
    private var names = 0

    /// 200 bytes, as the peers had.
    static let payload = "{\"pad\":\"" + String(repeating: "x", count: 190) + "\"}"
    static let clientName = "headway-bench"

    init(redis: BenchRedis, store: JobStore, workers: BenchWorkers, scale: BenchScale, say: @escaping (String) -> Void) {
        self.redis = redis
        self.store = store
        self.workers = workers
        self.scale = scale
        self.say = say
    }

    /// A queue or worker name that was not used before.
    func unused(_ what: String) -> String {
        names += 1
        return "\(what)-\(names)"
    }

    static func ids(_ count: Int) -> [String] { (0..<count).map { _ in UUID().uuidString.lowercased() } }

    func submit(_ id: String, queue: String, params: String = QueueBench.payload) async throws {
        _ = try await store.submit(try Self.submission(id, queue: queue, params: params))
    }

    static func submission(_ id: String, queue: String, params: String) throws -> JobSubmission {
        guard let job = JobID(id) else { throw CommandError(.failed, "\(id) is no job id") }
        return JobSubmission(id: job, queue: queue, pipeline: "generic", owner: .anonymous, paramsJSON: params)
    }

    /// Submits all with `depth` in flight; jobs per second.
    func submitAll(_ ids: [String], queue: String, depth: Int, params: String = QueueBench.payload) async throws -> Double {
        let store = store
        let jobs = try ids.map { try Self.submission($0, queue: queue, params: params) }
        let start = MachineClock.nanoseconds()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for lane in 0..<depth {
                group.addTask {
                    for index in stride(from: lane, to: jobs.count, by: depth) { _ = try await store.submit(jobs[index]) }
                }
            }
            try await group.waitForAll()
        }
        return Double(ids.count) / Double(MachineClock.nanoseconds() - start) * 1e9
    }

    /// One claim through the store; the queue must not be empty.
    func claim(_ queue: String, nonce: String) async throws -> Claim {
        guard case .job(let claim) = try await store.claim(queue: queue, worker: "bench", nonce: nonce) else {
            throw CommandError(.failed, "queue \(queue) is empty")
        }
        return claim
    }

    // MARK: Throughput

    /// Once with Redis on a core of its own, once with everyone on one. The goals are for the former, which is what a deployment has.
    func throughput() async throws {
        guard Placement.isPossible else { return try await throughput(named: "", hasGoals: true) }
        for placement in Placement.allCases {
            try placement.take(redis: redis.pid)
            try await throughput(named: placement == .split ? "" : ", " + placement.rawValue, hasGoals: placement == .split)
        }
        try Placement.leave(redis: redis.pid)
    }

    /// Floor and ours in turn, in slices of a tenth, so that a neighbour's load falls on both: submit, claim and finish.
    private func throughput(named suffix: String, hasGoals: Bool) async throws {
        try redis.flush()
        let floor = try QueueFloor(redis)
        let queue = unused("verbs")
        var (submit, submitFloor, pipelined, pipelinedFloor) = (Rate(), Rate(), Rate(), Rate())
        var (verbs, worker, runFloor, workerFloor) = (Rate(), Rate(), Rate(), Rate())
        let slice = scale.jobs / 10
        for _ in 0..<10 {
            let ids = Self.ids(slice)
            submitFloor.add(slice, try floor.submit(ids, payload: Self.payload, depth: 1))
            submit.add(slice, try await submitAll(ids, queue: queue, depth: 1))
            runFloor.add(slice, try floor.claimAndFinish(slice))
            verbs.add(slice, try await claimAndFinish(queue, slice))
            pipelinedFloor.add(slice, try floor.submit(Self.ids(slice), payload: Self.payload, depth: 16))
            pipelined.add(slice, try await submitAll(Self.ids(slice), queue: unused("pipelined"), depth: 16))
        }
        workerFloor.add(slice, try floor.claimAndFinish(slice))
        for _ in 0..<3 {
            worker.add(scale.jobs / 3, try await drain(Self.ids(scale.jobs / 3)))
            workerFloor.add(slice, try floor.claimAndFinish(slice))
        }
        func add(_ name: String, _ ours: Rate, _ floor: Rate, goal: Double) {
            let name = name + suffix
            figures.add("\(name): floor", floor.perSecond, "/s")
            figures.add(name, ours.perSecond, "/s")
            figures.add("\(name) / floor", ours.perSecond / floor.perSecond, "", hasGoals ? .atLeast(goal) : .none)
        }
        add("submit, one at a time", submit, submitFloor, goal: 0.4)
        add("submit, 16 in flight", pipelined, pipelinedFloor, goal: 0.5)
        add("claim + finish, verbs alone", verbs, runFloor, goal: 0.45)
        add("claim + finish, worker process", worker, workerFloor, goal: 0.45)
    }

    /// Jobs and the time they took.
    struct Rate {
        var jobs = 0.0
        var seconds = 0.0
        var perSecond: Double { jobs / seconds }

        mutating func add(_ count: Int, _ rate: Double) {
            jobs += Double(count)
            seconds += Double(count) / rate
        }
    }

    private func claimAndFinish(_ queue: String, _ count: Int) async throws -> Double {
        let start = MachineClock.nanoseconds()
        for number in 0..<count {
            let claim = try await claim(queue, nonce: "\(start)-\(number)")
            _ = try await store.finish(claim.lease, as: .complete, resultJSON: "{}", stagesMs: [])
        }
        return Double(count) / Double(MachineClock.nanoseconds() - start) * 1e9
    }

    /// Queues jobs and lets one worker process run them, one at a time: jobs per second.
    private func drain(_ ids: [String]) async throws -> Double {
        let queue = unused("drain")
        _ = try await submitAll(ids, queue: queue, depth: 64)
        let before = try traffic()
        let worker = try await workers.start(unused("worker"), queue: queue)
        try await BenchWait.until(within: .seconds(120), "all jobs of \(queue) ended") {
            try await Task.sleep(for: .milliseconds(100))
            return worker.marks.count == ids.count
        }
        let bytes = try traffic() - before
        await worker.stop()
        let times = worker.marks.map(\.nanoseconds).sorted()
        guard let first = times.first, let last = times.last, last > first else { throw CommandError(.failed, "no job started") }
        figures.add("bytes in + out of a worker per job", Double(bytes) / Double(ids.count), "B", .atMost(1500))
        return Double(times.count - 1) / Double(last - first) * 1e9
    }

    /// Bytes that went in and out of Redis so far.
    private func traffic() throws -> Int {
        try redis.info("total_net_input_bytes", "stats") + redis.info("total_net_output_bytes", "stats")
    }

    // MARK: What is sent

    /// Commands that a worker sends per job, counted while it drains a line and while jobs trickle in.
    func commandsPerJob() async throws {
        try redis.flush()
        let count = min(500, scale.jobs)
        for (name, isTrickle) in [("drained", false), ("one by one", true)] {
            let queue = unused("count")
            let ids = Self.ids(count)
            if !isTrickle { _ = try await submitAll(ids, queue: queue, depth: 16) }
            // A worker's start-up is no part of a job: counting begins when it waits, or sees the line first.
            var counter = isTrickle ? nil : try CommandCounter(redis, ignoring: Self.clientName)
            let worker = try await workers.start(unused("worker"), queue: queue)
            if isTrickle {
                try await Task.sleep(for: .milliseconds(300))
                counter = try CommandCounter(redis, ignoring: Self.clientName)
                try await Task.sleep(for: .milliseconds(100))
            }
            for id in isTrickle ? ids : [] {
                try await submit(id, queue: queue)
                try await Task.sleep(for: .milliseconds(3))
            }
            try await BenchWait.until(within: .seconds(60), "all jobs of \(queue) ended") { worker.marks.count == ids.count }
            try await Task.sleep(for: .milliseconds(100))
            let counts = try await counter?.stop() ?? [:]
            await worker.stop()
            // Single commands belong to the start-up and to the clock, not to a job.
            let sent = counts.filter { $0.value >= count / 10 }.values.reduce(0, +)
            figures.add("commands of a worker per job, \(name)", Double(sent) / Double(count), "", .atMost(3))
            say(counts.sorted { $0.value > $1.value }.prefix(8).map { "\($0.key) \($0.value)" }.joined(separator: ", "))
        }
    }

    // MARK: Memory

    func memory() async throws {
        let count = scale.jobs
        let queue = unused("memory")
        let ids = Self.ids(count)
        try redis.flush()
        // What Redis keeps once, and not for each job: scripts, buffers of connections.
        let rehearsal = unused("rehearsal")
        let few = Self.ids(100)
        _ = try await submitAll(few, queue: rehearsal, depth: 16)
        for id in few { try await Self.play(store, rehearsal, id) }
        try redis.flush()
        let before = try redis.info("used_memory", "memory")
        _ = try await submitAll(ids, queue: queue, depth: 16)
        figures.add("memory per queued job", Double(try redis.info("used_memory", "memory") - before) / Double(count), "B", .atMost(2500))
        let store = store
        try await withThrowingTaskGroup(of: Void.self) { group in
            for lane in 0..<16 {
                group.addTask { for id in stride(from: lane, to: ids.count, by: 16) { try await Self.play(store, queue, ids[id]) } }
            }
            try await group.waitForAll()
        }
        figures.add("memory per finished job", Double(try redis.info("used_memory", "memory") - before) / Double(count), "B", .atMost(6000))
    }

    /// A job with everything a watcher can see: three phases, six reports, a result.
    private static func play(_ store: JobStore, _ queue: String, _ nonce: String) async throws {
        guard case .job(let claim) = try await store.claim(queue: queue, worker: "bench", nonce: nonce) else { return }
        let stages: [(Phase, String)] = [(.analyzing, "analysis"), (.generating, "shape_generation"), (.postProcessing, "mesh_export")]
        for write in 0..<6 {
            let (phase, stage) = stages[write / 2]
            var state = ProgressState(phase: phase, percent: Double(write) * 15 + 3.4, stage: stage)
            state.phasePercent = Double(write % 2) * 50
            state.stagePercent = state.phasePercent
            (state.step, state.steps, state.item, state.items) = (21, 50, 1, 1)
            (state.etaMs, state.etaLowMs, state.etaHighMs) = (33_000, 29_000, 41_000)
            state.percentPerSecond = 0.9
            state.message = "step 21 of 50"
            _ = try await store.advance(claim.lease, write: write + 1, to: state)
        }
        let result = "{\"files\":[{\"name\":\"model.glb\",\"bytes\":1234567,\"content_type\":\"model/gltf-binary\"}]}"
        let stagesMs = stages.map { (stage: $0.1, ms: 12_345) }
        _ = try await store.finish(claim.lease, as: .complete, resultJSON: result, stagesMs: stagesMs)
    }
}
