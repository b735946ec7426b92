import ArgumentParser
import JobStore

/// `headway workers`
struct WorkersCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "workers",
        abstract: "List the live workers and what they run, or let one end.",
        discussion: "A worker that died is listed until its record runs out; SEEN is the age of its last sign of life."
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var redis: RedisOptions
    @Flag(help: "Print one JSON array.") var json = false
    @Option(
        parsing: .singleValue,
        help: ArgumentHelp("Let this worker finish its jobs, take no more and end; may be repeated.", valueName: "worker")
    )
    var drain: [String] = []

    func run() async throws {
        let settings = try common.reader(redis.flags + [.init(Settings.json, json), .init(Settings.drainWorkers, drain)])
        let isJSON = try settings.value(Settings.json)
        let session = try RedisSession(settings)
        let names = try settings.value(Settings.drainWorkers)
        if !names.isEmpty { return try await Self.drain(names, session) }
        let (workers, running) = try await session.read { (store) async throws(StoreError) in
            let workers = try await store.workers()
            return (workers, try await store.runningJobs(of: workers))
        }
        let jobs = Dictionary(running.map { ($0.job, $0) }, uniquingKeysWith: { first, _ in first })
        if isJSON { return Output.standard.line(try JSONRows.text(workers.map { Row($0, jobs) })) }
        if workers.isEmpty { return Output.error.line("headway: no worker is alive") }
        let header = ["WORKER", "HOST", "GPU", "LABELS", "QUEUES", "VERSION", "BUSY", "DONE", "FAILED", "UP", "SEEN", "STATE", "JOBS"]
        let rows = workers.map { Self.cells($0, jobs) }
        for line in TextTable.lines(header: header, rows: rows, rightAligned: 6...8) { Output.standard.line(line) }
    }

    private static func drain(_ names: [String], _ session: RedisSession) async throws {
        let absent = try await session.read { (store) async throws(StoreError) in
            var absent: [String] = []
            for name in names where !(try await store.drainWorker(name)) { absent.append(name) }
            return absent
        }
        for name in names where !absent.contains(name) { Output.standard.line("\(name) drains") }
        guard absent.isEmpty else {
            throw CommandError(.absent, "no live worker is called \(absent.joined(separator: ", ")); `headway workers` lists them")
        }
    }

    // MARK: For people

    static func cells(_ worker: WorkerRecord, _ jobs: [String: RunningJob]) -> [String] {
        [
            worker.id, worker.host, gpus(worker.gpus), worker.labels.joined(separator: ","), worker.queues.joined(separator: ","),
            worker.version, "\(worker.jobs.count)/\(worker.concurrency)", "\(worker.finished)", "\(worker.failed)",
            DurationText.readable(milliseconds: worker.upMs), DurationText.readable(milliseconds: worker.silentMs),
            state(worker), worker.jobs.map { job($0, jobs[$0]) }.joined(separator: ", "),
        ]
    }

    /// `2× NVIDIA H200 141 GB`: equal ones together.
    static func gpus(_ gpus: [WorkerRecord.GPU]) -> String {
        var kinds: [(text: String, count: Int)] = []
        for gpu in gpus {
            let text = gpu.name + (gpu.memoryMB.map { " \(($0 + 512) / 1024) GB" } ?? "")
            if let index = kinds.firstIndex(where: { $0.text == text }) {
                kinds[index].count += 1
            } else {
                kinds.append((text, 1))
            }
        }
        return kinds.map { $0.count == 1 ? $0.text : "\($0.count)× \($0.text)" }.joined(separator: ", ")
    }

    static func state(_ worker: WorkerRecord) -> String {
        if worker.isDraining { return "draining" }
        if let reason = worker.slowedReason {
            return "paused \(DurationText.readable(milliseconds: worker.slowedForMs)): \(reason)"
        }
        return worker.jobs.isEmpty ? "idle" : "busy"
    }

    private static func job(_ id: String, _ running: RunningJob?) -> String {
        guard let running else { return id }
        let stall = running.isStalled ? ", stalled" : ""
        return "\(id) \(Int(running.percent)) % since \(DurationText.readable(milliseconds: running.runningMs))\(stall)"
    }

    // MARK: For programs

    private struct Row: Encodable {
        var id: String
        var host: String
        var pid: Int
        var version: String
        var queues: [String]
        var labels: [String]
        var pipeline: String
        var backend: String
        var concurrency: Int
        var gpus: [GPU]
        var cpus: Int
        var memoryMb: Int
        var jobs: [Job]
        var finished: Int
        var failed: Int
        var draining: Bool
        var slowedReason: String?
        var slowedForMs: Int?
        var startedAt: Int
        var upMs: Int
        var silentMs: Int

        struct GPU: Encodable {
            var name: String
            var memoryMb: Int?
            var memoryUsedMb: Int?
        }

        struct Job: Encodable {
            var id: String
            var phase: String?
            var percent: Double?
            var stage: String?
            var attempt: Int?
            var runningMs: Int?
            var stalled: Bool?
        }

        init(_ worker: WorkerRecord, _ jobs: [String: RunningJob]) {
            id = worker.id
            host = worker.host
            pid = worker.pid
            version = worker.version
            queues = worker.queues
            labels = worker.labels
            pipeline = worker.pipeline
            backend = worker.backend
            concurrency = worker.concurrency
            gpus = worker.gpus.map { GPU(name: $0.name, memoryMb: $0.memoryMB, memoryUsedMb: $0.memoryUsedMB) }
            cpus = worker.cpus
            memoryMb = worker.memoryMB
            self.jobs = worker.jobs.map { id in
                let job = jobs[id]
                return Job(
                    id: id,
                    phase: job?.phase,
                    percent: job?.percent,
                    stage: job?.stage,
                    attempt: job?.attempt,
                    runningMs: job?.runningMs,
                    stalled: job?.isStalled
                )
            }
            finished = worker.finished
            failed = worker.failed
            draining = worker.isDraining
            slowedReason = worker.slowedReason
            slowedForMs = worker.slowedReason == nil ? nil : worker.slowedForMs
            startedAt = worker.startedAtMs
            upMs = worker.upMs
            silentMs = worker.silentMs
        }
    }
}
