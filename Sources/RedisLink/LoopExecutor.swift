public import NIOCore

/// Runs tasks on the event loop of a connection, so that a command and its reply cross no thread.
///
/// For those who send one command after another (`withTaskExecutorPreference`). Measured on two cores: four thread switches less
/// for a claim and a finish, half of their time. What may block (files, a generator written in Swift) must run elsewhere.
public final class LoopExecutor: TaskExecutor {
    private let eventLoop: any EventLoop

    public init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        eventLoop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}
