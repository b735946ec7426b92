import JobStore
import ProgressCore

/// One forecast of a queue's line from what was read of it: pure.
struct WaitPass {
    let pipelines: [String: Pipeline]
    /// Of the pipelines in the scene.
    let statistics: [String: LearnedStatistics]
    let calibration: WaitCalibration
    /// Jobs of one kind take equally long: each kind is estimated once.
    private(set) var durations: [WaitScene.Facts: QueueForecast.Waiting] = [:]

    init(pipelines: [String: Pipeline], statistics: [String: LearnedStatistics], calibration: WaitCalibration) {
        self.pipelines = pipelines
        self.statistics = statistics
        self.calibration = calibration
    }

    struct Outcome {
        var frame: WaitFrame
        /// What was said of each waiting job.
        var waits: [JobID: QueueForecast.Wait] = [:]
    }

    /// - Parameter facts: of the jobs in the scene's lines.
    mutating func forecast(_ scene: WaitScene, facts: [JobID: WaitScene.Facts]) -> Outcome {
        guard !scene.workers.isEmpty else {
            return Outcome(frame: WaitFrame(lines: scene.lines.map { .init(reason: $0.isPaused ? .paused : .noWorker) }))
        }
        // Partitions are served side by side: by band, then by place.
        var order: [(line: Int, place: Int, band: Int)] = []
        for (index, line) in scene.lines.enumerated() where !line.isPaused {
            for (place, entry) in line.jobs.enumerated() { order.append((index, place, entry.band)) }
        }
        order.sort { ($0.band, $0.place, $0.line) < ($1.band, $1.place, $1.line) }
        let line = order.map { entry in facts[scene.lines[entry.line].jobs[entry.place].job].map { duration($0) } ?? .unknown }
        let waits = QueueForecast.waits(workers: slots(scene), line: line, calibration: calibration)
        var outcome = Outcome(frame: WaitFrame(lines: scene.lines.map { .init(reason: $0.isPaused ? .paused : nil) }))
        for (entry, wait) in zip(order, waits) {
            outcome.frame.lines[entry.line].places.append(WaitOutlook(wait))
            outcome.waits[scene.lines[entry.line].jobs[entry.place].job] = wait
        }
        return outcome
    }

    /// What each place for a job at a worker is busy with.
    private mutating func slots(_ scene: WaitScene) -> [QueueForecast.Busy] {
        var ours: [QueueForecast.Busy] = []
        var others: [QueueForecast.Busy] = []
        for worker in scene.workers {
            let running = scene.running.filter { $0.worker == worker.id }
            for job in running {
                var slot = busy(job)
                slot.remainingMs = max(slot.remainingMs, Double(worker.slowedForMs))
                if job.isOurs { ours.append(slot) } else { others.append(slot) }
            }
            let factor = slowness(of: worker.id, running.first?.facts.pipeline)
            for _ in running.count..<max(running.count, worker.concurrency) {
                others.append(QueueForecast.Busy(remainingMs: Double(worker.slowedForMs), slowness: factor))
            }
        }
        // As many as the queue's limit lets run, those that are free first.
        let limits = scene.lines.compactMap(\.maxRunning)
        guard !limits.isEmpty, limits.count == scene.lines.count else { return ours + others }
        let most = max(1, limits.reduce(0, +))
        others.sort { $0.remainingMs < $1.remainingMs }
        return ours + others.prefix(max(0, most - ours.count))
    }

    private mutating func busy(_ job: WaitScene.Running) -> QueueForecast.Busy {
        let factor = slowness(of: job.worker, job.facts.pipeline)
        if let told = job.told {
            return QueueForecast.Busy(
                etaMs: Double(told.etaMs),
                lowMs: Double(told.lowMs),
                highMs: Double(told.highMs),
                ageMs: Double(told.ageMs),
                elapsedMs: Double(job.elapsedMs),
                slowness: factor
            )
        }
        var expected = duration(job.facts)
        expected.durationMs *= factor
        return QueueForecast.Busy(job: expected, elapsedMs: Double(job.elapsedMs), slowness: factor)
    }

    /// A worker that ran no such job is as fast as the others.
    private func slowness(of worker: String, _ pipeline: String?) -> Double {
        if let pipeline { return statistics[pipeline]?.slowness(of: worker) ?? 1 }
        return statistics.values.map { $0.slowness(of: worker) }.first { $0 != 1 } ?? 1
    }

    private mutating func duration(_ facts: WaitScene.Facts) -> QueueForecast.Waiting {
        if let known = durations[facts] { return known }
        let pipeline = pipelines[facts.pipeline] ?? Pipeline(name: facts.pipeline, stages: [])
        let duration = QueueForecast.Waiting(
            pipeline: pipeline,
            plan: facts.plan.map(PlanText.stages) ?? [],
            statistics: statistics[facts.pipeline] ?? LearnedStatistics(),
            hints: JobHints(jobClass: facts.jobClass ?? pipeline.jobClass, isCold: facts.isCold)
        )
        durations[facts] = duration
        return duration
    }
}

extension QueueForecast.Waiting {
    /// A job that went before it could be looked at.
    fileprivate static let unknown = QueueForecast.Waiting(durationMs: 0, variance: 0)
}

/// A plan as its submitter gave it.
enum PlanText {
    static func stages(_ json: String) -> [PlannedStage] {
        guard let text = try? CheckedJSON(Array(json.utf8), maximumDepth: 16) else { return [] }
        var stages: [PlannedStage] = []
        text.root.forEachElement { _, element in
            guard stages.count < ProgressLimits.stages else { return }
            var stage = PlannedStage(name: "")
            element.forEachMember { name, value in
                switch name {
                case "stage": stage.name = value.string ?? ""
                case "units": stage.units = value.double
                case "work": stage.work = value.double
                case "declared_ms": stage.declaredMs = value.double.map { Int(min(max($0, 0), Double(ProgressLimits.durationMs))) }
                default: break
                }
            }
            if !stage.name.isEmpty { stages.append(stage) }
        }
        return stages
    }
}
