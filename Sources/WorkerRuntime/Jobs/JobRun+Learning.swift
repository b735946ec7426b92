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
        do throws(StoreError) {
            return try await store.statistics(pipeline: claim.pipeline)
        } catch {
            metrics.storeErrors.increment()
            logger.debug(
                "learned durations not read",
                metadata: ["job.id": "\(lease.job)", "error.code": "\(error.code.rawValue)"]
            )
            return LearnedStatistics()
        }
    }

    /// Once, after Redis has taken the end; what is lost here is missed by nobody.
    func teach(_ lesson: JobLesson) async {
        do throws(StoreError) {
            _ = try await store.learn(lesson.record, pipeline: claim.pipeline, lease: lease)
            try await store.setTrace(lease.job, json: lesson.traceJSON)
        } catch {
            metrics.storeErrors.increment()
            logger.debug("durations not learned", metadata: ["job.id": "\(lease.job)", "error.code": "\(error.code.rawValue)"])
        }
    }
}

/// What remains of a job that ended well.
struct JobLesson: Sendable {
    let record: LearningRecord
    /// When its stages began, ended and ticked: a JSON object.
    let traceJSON: String
}
