import JobStore
import Logging
import ProgressCore
import Telemetry

/// What a job is told by those before it, and tells those after it. Nothing here may hurt the job: an answer that does not
/// come is an empty one.
extension JobRun {
    var hints: JobHints {
        JobHints(worker: lease.worker, jobClass: claim.jobClass ?? pipeline.jobClass, isCold: claim.isCold ?? isFirstOfItsPipeline)
    }

    func learned() async -> LearnedStatistics {
        if let known = learnedCache.statistics(of: claim.pipeline, nowMs: startMs) {
            // A task of its own, because the job starts now, with what is known.
            if known.isOld { Task(executorPreference: worker.loopExecutor) { await self.read() } }
            return known.statistics
        }
        return await read()
    }

    @discardableResult
    private func read() async -> LearnedStatistics {
        do throws(StoreError) {
            let statistics = try await store.statistics(pipeline: claim.pipeline)
            learnedCache.note(statistics, of: claim.pipeline, nowMs: environment.nowMs())
            return statistics
        } catch {
            metrics.storeErrors.increment()
            logger.debug(
                "learned durations not read",
                metadata: ["job.id": "\(lease.job)", "error.code": "\(error.code.rawValue)"]
            )
            return LearnedStatistics()
        }
    }

    /// What the job has to teach; of short jobs not every one is heard.
    func lesson(of progress: JobProgress, endedAtMs: Int) -> JobLesson? {
        let durationMs = endedAtMs - startMs
        // Asked before the lesson is drawn, which is work.
        guard learnedCache.wantsLesson(of: claim.pipeline, durationMs: durationMs, nowMs: endedAtMs),
            let lesson = progress.finish(atMs: endedAtMs),
            learnedCache.takesLesson(of: claim.pipeline, durationMs: durationMs, nowMs: endedAtMs)
        else {
            return nil
        }
        return lesson
    }

    /// Once, after Redis has taken the end; what is lost here is missed by nobody.
    func teach(_ lesson: JobLesson) async {
        do throws(StoreError) {
            _ = try await store.learn(lesson.record, pipeline: claim.pipeline, lease: lease, traceJSON: lesson.traceJSON())
            learnedCache.forget(claim.pipeline)
        } catch {
            metrics.storeErrors.increment()
            logger.debug("durations not learned", metadata: ["job.id": "\(lease.job)", "error.code": "\(error.code.rawValue)"])
        }
    }
}

/// What remains of a job that ended well.
struct JobLesson: Sendable {
    let record: LearningRecord
    let trace: TraceRecorder
    let plan: [StageOutline]
    let hints: JobHints

    var hasStages: Bool { !trace.stages.isEmpty }

    /// When its stages began, ended and ticked: a JSON object.
    func traceJSON() -> String { TraceJSON.text(trace, plan: plan, hints: hints) }
}
