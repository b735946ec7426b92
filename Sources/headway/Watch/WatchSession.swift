import ArgumentParser
import Foundation
import Synchronization
import UnixSignals

/// Watches jobs and shows them, until all have ended or the user has seen enough.
struct WatchSession: Sendable {
    struct Options: Sendable {
        let isJSON: Bool
        let lostAfter: Duration

        init(_ settings: SettingsReader) throws(CommandError) {
            isJSON = try settings.value(Settings.json)
            lostAfter = try settings.value(Settings.lostAfter)
        }
    }

    struct Ended: Sendable {
        let job: String
        let end: JobEnd
        /// The newest event of the job, if any came.
        let event: JobEvent?
    }

    let gateway: GatewayClient
    let options: Options

    private enum Happening: Sendable {
        case ended(String, JobEnd)
        case interrupted(CInt)
        case drawn
    }

    /// Remembers the newest event of each job on its way to the sink proper.
    private final class Recorder: WatchSink {
        private let events = Mutex<[String: JobEvent]>([:])
        private let next: any WatchSink

        init(next: any WatchSink) { self.next = next }

        func event(_ event: JobEvent, raw: String, job: String) {
            if event.phase != nil { events.withLock { $0[job] = event } }
            next.event(event, raw: raw, job: job)
        }

        func link(_ link: JobView.Link, job: String) { next.link(link, job: job) }
        func last(_ job: String) -> JobEvent? { events.withLock { $0[job] } }
    }

    /// Ctrl-C leaves the jobs running, says so and ends the process's part with 130.
    func run(_ jobs: [String]) async throws -> [Ended] {
        let style = TerminalStyle(isTerminal: Output.standard.isTerminal, environment: ProcessInfo.processInfo.environment)
        let board: WatchBoard? = options.isJSON ? nil : await makeBoard(jobs, style)
        let recorder = Recorder(next: board ?? JSONLinesSink(output: .standard))
        let signals = await UnixSignalsSequence(trapping: [.sigint, .sigterm])
        var ends: [String: JobEnd] = [:]
        try await withThrowingTaskGroup(of: Happening.self) { group in
            group.addTask {
                for await signal in signals { return .interrupted(signal == .sigint ? SIGINT : SIGTERM) }
                return .drawn
            }
            if let board {
                group.addTask {
                    await board.run()
                    return .drawn
                }
            }
            for job in jobs {
                let watcher = JobWatcher(job: job, gateway: gateway, sink: recorder, lostAfter: options.lostAfter)
                group.addTask { .ended(job, try await watcher.run()) }
            }
            while ends.count < jobs.count, let happening = try await group.next() {
                switch happening {
                case .ended(let job, let end):
                    ends[job] = end
                    board?.close(job, end)
                    if board == nil { tell(job, end) }
                case .interrupted(let signal):
                    board?.restore()
                    let left = jobs.filter { ends[$0] == nil }
                    let what = left.count == 1 ? "job \(left[0]) goes on" : "\(left.count) jobs go on"
                    Output.error.line(
                        "headway: \(what); `headway watch \(left.joined(separator: " "))` shows it again, `headway cancel` ends it"
                    )
                    group.cancelAll()
                    throw ExitCode(128 + signal)
                case .drawn: break
                }
            }
            group.cancelAll()
            // The board draws the last state and gives the cursor back.
            while (try? await group.next()) != nil {}
        }
        return jobs.map { Ended(job: $0, end: ends[$0] ?? .linkLost, event: recorder.last($0)) }
    }

    /// JSON lines carry every end the gateway told; the others are said on stderr.
    private func tell(_ job: String, _ end: JobEnd) {
        switch end {
        case .complete, .failed, .cancelled: break
        case .absent: Output.error.line("headway: job \(job): not known to the gateway, or no longer kept")
        case .linkLost:
            let silence = DurationText.readable(milliseconds: DurationText.milliseconds(options.lostAfter))
            Output.error.line("headway: job \(job): no word from \(gateway.baseURL) for \(silence)")
        case .refused(let error): Output.error.line("headway: \(error.message)")
        }
    }

    private func makeBoard(_ jobs: [String], _ style: TerminalStyle) async -> WatchBoard {
        // The names of stages still to come are a nicety: without them the bars show what the events name.
        async let names = gateway.stageNames()
        var pipelines: [String: String] = [:]
        await withTaskGroup(of: (String, String)?.self) { group in
            for job in jobs {
                group.addTask {
                    guard let json = try? await gateway.snapshot(job), let pipeline = JobEvent.parse(json)?.pipeline else { return nil }
                    return (job, pipeline)
                }
            }
            for await found in group {
                if let (job, pipeline) = found { pipelines[job] = pipeline }
            }
        }
        let stages = await names
        return WatchBoard(jobs: jobs, stages: pipelines.compactMapValues { stages[$0] }, output: .standard, style: style)
    }
}
