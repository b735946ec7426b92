public import ProgressCore
import RedisLink

/// Whose turn it is to forecast the waits of a queue.
public enum WaitTurn: Sendable, Hashable {
    /// The caller's; with what was learned of earlier forecasts' errors.
    case mine(WaitCalibration)
    /// Somebody else's; what was said last, if anything was.
    case theirs(WaitFrame?)
    /// The caller's own again once the tick is over; what it said last.
    case early(WaitFrame?)
}

/// How long waiting jobs wait. All of it is a convenience: nothing of a job depends on it, and all of it may be lost.
extension JobStore {
    /// Takes the turn if it is due and free: one process at a time, at most one per tick.
    public func takeWaitTurn(queue: String, by holder: String) async throws(StoreError) -> WaitTurn {
        let reply = try await run(
            Scripts.turn,
            keys: [keys.waits(queue, .frame), keys.waits(queue, .calibration)],
            [.string(holder), .int(StoreLimits.forecastTickMs), .int(StoreLimits.forecastHoldMs)]
        )
        switch reply.status {
        case "mine": return .mine(reply.text(1).flatMap(WaitCalibration.init(text:)) ?? WaitCalibration())
        case "theirs": return .theirs(reply.text(1).flatMap(WaitFrame.init(text:)))
        case "early": return .early(reply.text(1).flatMap(WaitFrame.init(text:)))
        default: throw reply.unexpected
        }
    }

    /// Says it to everybody.
    ///
    /// - Parameter calibration: when it changed.
    public func putWaitFrame(_ frame: WaitFrame, queue: String, calibration: WaitCalibration?) async throws(StoreError) {
        let key = RedisArgument.string(keys.waits(queue, .frame))
        var commands: [[RedisArgument]] = [
            ["HSET", key, "frame", .string(frame.text)], ["PEXPIRE", key, .int(StoreLimits.forecastKeepMs)],
        ]
        if let calibration {
            commands.append([
                "SET", .string(keys.waits(queue, .calibration)), .string(calibration.text), "PX", .int(StoreLimits.statisticsKeepMs),
            ])
        }
        for reply in try await pipeline(commands) {
            if case .error(let message) = reply { throw StoreError(.corrupt, message) }
        }
    }

    /// What a forecast is made from: a few pipelined reads, bounded by `StoreLimits`.
    ///
    /// - Parameters:
    ///   - known: waiting jobs whose facts the caller has.
    ///   - told: waiting jobs of which the caller wants to know when they began.
    public func waitScene(queue: String, known: Set<JobID>, told: Set<JobID>) async throws(StoreError) -> WaitScene {
        var scene = WaitScene()
        let (ids, leased) = try await readLines(queue, &scene)
        var jobsOfWorkers: [String: [String]] = [:]
        var runningIDs = leased
        let workers = try await pipeline(ids.map { ["HMGET", .string(keys.worker($0))] + Self.workerFields.map { .string($0) } })
        for (id, reply) in zip(ids, workers) {
            guard let worker = Self.worker(id, reply, queue: queue, nowMs: scene.nowMs) else { continue }
            scene.workers.append(worker.worker)
            jobsOfWorkers[id] = worker.jobs
            runningIDs += worker.jobs.compactMap { JobID($0) }.filter { !leased.contains($0) }
        }
        let waiting = Set(scene.lines.flatMap { $0.jobs.map(\.job) })
        guard !scene.workers.isEmpty else { return scene }
        let asked = waiting.subtracting(known).sorted { $0.text < $1.text }
        let gone = told.subtracting(waiting).sorted { $0.text < $1.text }
        var seen: Set<JobID> = []
        runningIDs = runningIDs.filter { seen.insert($0).inserted }
        let replies = try await pipeline(
            asked.map { ["HMGET", .string(keys.job($0)), "pipeline", "class", "cold", "plan"] }
                + gone.map { ["HMGET", .string(keys.job($0)), "claimed_at"] }
                + runningIDs.map { ["HMGET", .string(keys.job($0))] + Self.runningFields.map { .string($0) } }
        )
        for (job, reply) in zip(asked, replies) {
            if let values = reply.array, values.count == 4 { scene.facts[job] = Self.facts(values) }
        }
        for (job, reply) in zip(gone, replies.dropFirst(asked.count)) {
            if let at = reply.array?.first?.int { scene.begunAtMs[job] = at }
        }
        let live = Set(scene.workers.map(\.id))
        for (job, reply) in zip(runningIDs, replies.dropFirst(asked.count + gone.count)) {
            guard let running = Self.running(job, reply, queue: queue, nowMs: scene.nowMs), live.contains(running.worker) else { continue }
            scene.running.append(running)
        }
        return scene
    }

    /// The lines of all partitions. Returns the registered workers' ids and the running jobs of the queue.
    private func readLines(_ queue: String, _ scene: inout WaitScene) async throws(StoreError) -> (ids: [String], leased: [JobID]) {
        let places = StoreLimits.forecastPlaces(partitions: keys.partitions)
        let parts = 0..<keys.partitions
        let replies = try await pipeline(
            [["TIME"], ["ZREVRANGE", .string(keys.workers), "0", .int(StoreLimits.forecastWorkers - 1)]]
                + parts.flatMap { part -> [[RedisArgument]] in
                    [
                        ["HMGET", .string(keys.queue(queue, .meta, partition: part)), "paused", "max_running"],
                        ["ZRANGE", .string(keys.queue(queue, .ready, partition: part)), "0", .int(places - 1), "WITHSCORES"],
                        ["ZRANGE", .string(keys.queue(queue, .leases, partition: part)), "0", .int(StoreLimits.forecastRunning - 1)],
                    ]
                }
        )
        let time = replies[0].array ?? []
        scene.nowMs = time.count == 2 ? (time[0].int ?? 0) * 1000 + (time[1].int ?? 0) / 1000 : 0
        var leased: [JobID] = []
        for part in parts {
            var line = WaitScene.Line()
            let meta = replies[2 + 3 * part].array ?? []
            line.isPaused = meta.first.map { !$0.isNull } ?? false
            line.maxRunning = meta.last?.int
            let flat = replies[3 + 3 * part].array ?? []
            for index in stride(from: 0, to: flat.count - 1, by: 2) {
                guard let job = flat[index].string.flatMap(JobID.init), let score = flat[index + 1].string.flatMap(Double.init) else {
                    continue
                }
                line.jobs.append((job, Int(max(0, min(score / Self.band, 100)))))
            }
            leased += (replies[4 + 3 * part].array ?? []).compactMap { $0.string.flatMap(JobID.init) }
            scene.lines.append(line)
        }
        return ((replies[1].array ?? []).compactMap(\.string), Array(leased.prefix(StoreLimits.forecastRunning)))
    }

    /// As in `line.lua`.
    private static let band = 1_099_511_627_776.0

    private static let workerFields = ["queues", "concurrency", "jobs", "draining", "drain", "slowed_reason", "slowed_until"]

    /// Nil for one that is gone, drains, or takes no jobs of the queue.
    private static func worker(
        _ id: String,
        _ reply: RESPValue,
        queue: String,
        nowMs: Int
    ) -> (worker: WaitScene.Worker, jobs: [String])? {
        guard let values = reply.array, values.count == workerFields.count, let queues = values[0].string,
            queues.split(separator: ",").contains(where: { $0 == queue }), values[3].string != "1", values[4].string != "1"
        else { return nil }
        let concurrency = min(max(values[1].int ?? 1, 1), StoreLimits.forecastRunning)
        let isSlowed = !(values[5].string ?? "").isEmpty
        let worker = WaitScene.Worker(
            id: id,
            concurrency: concurrency,
            slowedForMs: isSlowed ? max(0, (values[6].int ?? 0) - nowMs) : 0
        )
        let jobs = (values[2].string ?? "").split(separator: ",").prefix(concurrency).map(String.init)
        return (worker, jobs)
    }

    private static let runningFields = [
        "pipeline", "class", "cold", "fence", "worker", "queue", "claimed_at", "eta_ms", "eta_low_ms", "eta_high_ms", "estimating",
        "updated_at",
    ]

    /// Nil for a job that does not run any more.
    private static func running(_ job: JobID, _ reply: RESPValue, queue: String, nowMs: Int) -> WaitScene.Running? {
        guard let values = reply.array, values.count == runningFields.count, !values[3].isNull, let worker = values[4].string else {
            return nil
        }
        var running = WaitScene.Running(
            job: job,
            worker: worker,
            facts: facts(Array(values[0..<3])),
            isOurs: values[5].string == queue,
            elapsedMs: max(0, nowMs - (values[6].int ?? nowMs))
        )
        if let eta = values[7].int, values[10].string != "1" {
            running.told = WaitScene.Running.Told(
                etaMs: eta,
                lowMs: values[8].int ?? eta,
                highMs: values[9].int ?? eta,
                ageMs: max(0, nowMs - (values[11].int ?? nowMs))
            )
        }
        return running
    }

    private static func facts(_ values: [RESPValue]) -> WaitScene.Facts {
        WaitScene.Facts(
            pipeline: values[0].string ?? "",
            jobClass: values[1].string,
            isCold: values[2].string == "1",
            plan: values.count > 3 ? values[3].string : nil
        )
    }
}
