import AsyncHTTPClient
import NIOCore
import NIOHTTP1
import ProgressCore
import Synchronization

/// Where a watcher puts what it hears. Called in the order of events of one job; must not block for long.
protocol WatchSink: Sendable {
    func event(_ event: JobEvent, raw: String, job: String)
    func link(_ link: JobView.Link, job: String)
}

/// Watches one job until its end, whatever happens to the link: event stream first, long polls when streams keep failing.
struct JobWatcher: Sendable {
    let job: String
    let gateway: GatewayClient
    let sink: any WatchSink
    let lostAfter: Duration

    /// How one attempt to hear something ended.
    private enum Attempt {
        case ended(JobEnd)
        /// It broke off; `lastHeard` is when the gateway had last said anything during it.
        case broken(lastHeard: ContinuousClock.Instant?)
    }

    /// What is known across attempts.
    private struct Progress {
        var order = EventOrder()
        var cursor = ""
        var backoff = Backoff()
        var isPolling = false
        var pollsInARow = 0
    }

    /// Returns how the watch ended; throws only when cancelled.
    func run() async throws -> JobEnd {
        var progress = Progress()
        var silentSince = ContinuousClock.now
        while true {
            try Task.checkCancellation()
            let attempt = progress.isPolling ? try await poll(&progress) : try await stream(&progress)
            switch attempt {
            case .ended(let end): return end
            case .broken(let lastHeard):
                if let lastHeard {
                    progress.backoff.succeeded()
                    silentSince = max(silentSince, lastHeard)
                }
            }
            if progress.isPolling, progress.pollsInARow > 0 {
                // A poll that answered is no failure: the next one goes out at once, and now and then a stream gets a chance.
                if progress.pollsInARow % 5 == 0 { progress.isPolling = false }
                continue
            }
            let delay = progress.backoff.next(random: .random(in: 0..<1))
            if progress.backoff.failures >= Limits.failuresBeforePolling { progress.isPolling = true }
            let left = lostAfter - (.now - silentSince)
            guard left > .zero else {
                sink.link(.lost, job: job)
                return .linkLost
            }
            sink.link(progress.isPolling ? .polling : .connecting, job: job)
            try await Task.sleep(for: min(delay, max(left, .milliseconds(1))))
        }
    }

    // MARK: Event stream

    /// When the gateway was last heard: written by the reader, read by its watchdog.
    private final class Pulse: Sendable {
        private let last = Mutex<ContinuousClock.Instant?>(nil)
        func beat() { last.withLock { $0 = .now } }
        var instant: ContinuousClock.Instant? { last.withLock { $0 } }
    }

    private func stream(_ progress: inout Progress) async throws -> Attempt {
        let pulse = Pulse()
        let (attempt, state) = try await Self.race(job: self, from: progress, pulse)
        if let state { progress = state }
        return attempt
    }

    /// The reader and its watchdog; whichever ends first ends the attempt.
    private static func race(job: JobWatcher, from start: Progress, _ pulse: Pulse) async throws -> (Attempt, Progress?) {
        try await withThrowingTaskGroup(of: (Attempt, Progress)?.self) { group in
            defer { group.cancelAll() }
            group.addTask {
                var progress = start
                let attempt = try await job.read(&progress, pulse)
                return (attempt, progress)
            }
            group.addTask {
                let begin = ContinuousClock.now
                while true {
                    let left = Limits.streamSilence - (.now - (pulse.instant ?? begin))
                    guard left > .zero else { return nil }
                    try await Task.sleep(for: left)
                }
            }
            if let (attempt, progress) = try await group.next() ?? nil { return (attempt, progress) }
            // Silence. The reader, stopped, still says how far it came.
            group.cancelAll()
            return (.broken(lastHeard: pulse.instant), try await group.next()??.1)
        }
    }

    private func read(_ progress: inout Progress, _ pulse: Pulse) async throws -> Attempt {
        var headers = [("accept", "text/event-stream"), ("cache-control", "no-cache")]
        if !progress.cursor.isEmpty { headers.append(("last-event-id", progress.cursor)) }
        let response: HTTPClientResponse
        do {
            response = try await gateway.stream("/v1/jobs/\(GatewayClient.percentEncoded(job))/events", headers: headers)
        } catch {
            return error.code == .usage ? .ended(.refused(error)) : .broken(lastHeard: nil)
        }
        pulse.beat()
        switch response.status.code {
        case 200: break
        case 204: return try await judgeBySnapshot()
        case 404, 410: return .ended(.absent)
        case 400..<500 where response.status.code != 429 && response.status.code != 408:
            let error = CommandError(.usage, "the gateway refused to show job \(job): HTTP \(response.status.code)")
            return .ended(.refused(error))
        default: return .broken(lastHeard: nil)
        }
        var parser = EventStreamParser(lastEventID: progress.cursor)
        var wasHeard = false
        do {
            for try await buffer in response.body {
                pulse.beat()
                for item in try parser.feed(buffer.readableBytesView) {
                    switch item {
                    case .comment: wasHeard = true
                    case .retry(let ms): progress.backoff.serverAsked(milliseconds: ms)
                    case .event(let event):
                        wasHeard = true
                        progress.cursor = event.lastEventID
                        sink.link(.live, job: job)
                        if let end = take(event.data, &progress) { return .ended(end) }
                    }
                }
            }
        } catch {
            // Broken, oversized or stopped: what was heard until now counts.
        }
        return .broken(lastHeard: wasHeard ? .now : nil)
    }

    // MARK: Long poll

    private func poll(_ progress: inout Progress) async throws -> Attempt {
        let path = "/v1/jobs/\(GatewayClient.percentEncoded(job))?after=\(progress.order.seq)&wait_ms=\(Limits.pollWaitMs)"
        let answer: GatewayClient.Answer
        do {
            answer = try await gateway.request(.GET, path, timeout: .milliseconds(Limits.pollWaitMs) + .seconds(Limits.requestSeconds))
        } catch {
            try Task.checkCancellation()
            progress.pollsInARow = 0
            return .broken(lastHeard: nil)
        }
        switch answer.status {
        case 200:
            guard let parts = PollAnswer(answer.body) else { break }
            progress.pollsInARow += 1
            sink.link(.polling, job: job)
            // An answer without the two parts is the plain snapshot.
            let events = parts.events + (parts.state.map { [$0] } ?? (parts.events.isEmpty ? [answer.body] : []))
            for raw in events {
                if let end = take(raw, &progress) { return .ended(end) }
            }
            if !progress.cursor.isEmpty || progress.order.seq > 0 { progress.cursor = "\(progress.order.seq)" }
            return .broken(lastHeard: .now)
        case 204, 304:
            progress.pollsInARow += 1
            return .broken(lastHeard: .now)
        case 404, 410: return .ended(.absent)
        default: break
        }
        progress.pollsInARow = 0
        return .broken(lastHeard: nil)
    }

    private func judgeBySnapshot() async throws -> Attempt {
        do {
            let raw = try await gateway.snapshot(job)
            guard let event = JobEvent.parse(raw), let end = Self.end(of: event) else { return .broken(lastHeard: .now) }
            sink.event(event, raw: raw, job: job)
            return .ended(end)
        } catch {
            try Task.checkCancellation()
            return error.code == .absent ? .ended(.absent) : .broken(lastHeard: nil)
        }
    }

    /// Hands an event on if it is news, and says whether it was the last.
    private func take(_ raw: String, _ progress: inout Progress) -> JobEnd? {
        guard let event = JobEvent.parse(raw), progress.order.admits(event) else { return nil }
        sink.event(event, raw: raw, job: job)
        return Self.end(of: event)
    }

    private static func end(of event: JobEvent) -> JobEnd? {
        if event.type == "gone" || event.error?.code == "job_not_found" { return .absent }
        switch event.phase {
        case .complete: return .complete
        case .failed: return .failed
        case .cancelled: return .cancelled
        default: return nil
        }
    }
}
