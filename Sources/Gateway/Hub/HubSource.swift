import JobStore
import Logging
import NIOCore
import ProgressCore
import RedisLink

/// What the hub needs of Redis. Futures, not async functions: everything answers on the hub's own loop, in a known order, so
/// that tests drive it with a clock of their own.
protocol HubSource: AnyObject, Sendable {
    /// Channel of a job's events.
    func channel(of job: JobID) -> String
    /// Succeeds when Redis has acknowledged all of them.
    func subscribe(_ channels: [String]) -> EventLoopFuture<Void>
    func unsubscribe(_ channels: [String])
    func heads(_ jobs: [JobID]) -> EventLoopFuture<[JobHead?]>
    func sequences(_ jobs: [JobID]) -> EventLoopFuture<[Int]>
    func milestones(_ job: JobID, after: Int) -> EventLoopFuture<[Milestone]>
    /// Names of the queues the jobs stand in; nil for absent jobs.
    func queueNames(_ jobs: [JobID]) -> EventLoopFuture<[String?]>
    /// Where jobs wait; nil for what does not wait in a line.
    func places(_ questions: [PlaceQuestion]) -> EventLoopFuture<[JobPlace?]>
    /// How long the jobs of each queue wait; nil where nothing is known. Never fails: a place is worth telling without.
    func waits(_ queues: [String]) -> EventLoopFuture<[WaitFrame?]>
    func partition(of job: JobID) -> Int
}

/// The real one: a subscriber connection and the job store.
///
/// Each read is one `Task` for a whole batch of jobs, on the cold path: events never come this way.
final class RedisHubSource: HubSource {
    private let store: JobStore
    private let subscriber: RedisSubscriber
    private let forecaster: WaitForecaster
    private let eventLoop: any EventLoop

    init(store: JobStore, subscriber: RedisSubscriber, forecaster: WaitForecaster) {
        self.store = store
        self.subscriber = subscriber
        self.forecaster = forecaster
        self.eventLoop = subscriber.eventLoop
    }

    func channel(of job: JobID) -> String { store.keys.live(job) }
    func subscribe(_ channels: [String]) -> EventLoopFuture<Void> { subscriber.subscribe(channels) }
    func unsubscribe(_ channels: [String]) { subscriber.unsubscribe(channels) }

    func heads(_ jobs: [JobID]) -> EventLoopFuture<[JobHead?]> {
        eventLoop.makeFutureWithTask { [store] in try await store.heads(jobs) }
    }

    func sequences(_ jobs: [JobID]) -> EventLoopFuture<[Int]> {
        eventLoop.makeFutureWithTask { [store] in try await store.sequences(jobs) }
    }

    func milestones(_ job: JobID, after: Int) -> EventLoopFuture<[Milestone]> {
        eventLoop.makeFutureWithTask { [store] in try await store.milestones(job, after: after) }
    }

    func queueNames(_ jobs: [JobID]) -> EventLoopFuture<[String?]> {
        eventLoop.makeFutureWithTask { [store] in try await store.queueNames(of: jobs) }
    }

    func places(_ questions: [PlaceQuestion]) -> EventLoopFuture<[JobPlace?]> {
        eventLoop.makeFutureWithTask { [store] in try await store.places(questions) }
    }

    func waits(_ queues: [String]) -> EventLoopFuture<[WaitFrame?]> {
        eventLoop.makeFutureWithTask { [forecaster] in
            var frames: [WaitFrame?] = []
            for queue in queues { frames.append(await forecaster.frame(queue)) }
            return frames
        }
    }

    func partition(of job: JobID) -> Int { store.keys.partition(of: job) }
}
