import FoundationEssentials
import ProgressCore

/// Plays traces through the worker's report schedule: how many messages it saves, and what the bar that clients draw from them
/// loses against one that is told every moment.
struct ScheduleBench {
    let paths: [String]

    private struct Total {
        var jobs = 0
        var ticks = 0
        var messages = 0
        var seconds = 0.0
        /// Largest distance of the bar from true time, summed over jobs: told at once, and as drawn.
        var exact = 0.0
        var drawn = 0.0
        /// Largest jump that a client draws at a message, in points, over all jobs.
        var jump = 0.0
    }

    func run() throws {
        var rows: [[String]] = []
        for path in paths {
            var total = Total()
            var statistics = LearnedStatistics()
            let decoder = JSONDecoder()
            let lines = try TextFile.read(path, limit: Limits.traceFileBytes).split(separator: "\n")
            for (number, line) in lines.enumerated() {
                guard let trace = try? decoder.decode(TraceJob.self, from: Data(line.utf8)), trace.duration > 0 else {
                    throw CommandError.usage("\(path):\(number + 1): not a recorded job")
                }
                play(trace, &statistics, &total)
            }
            rows.append(Self.row(path, total))
        }
        let header = ["TRACES", "JOBS", "TICKS", "MESSAGES", "PER S", "MS SAVED", "LIN TOLD", "LIN DRAWN", "LARGEST STEP"]
        for line in TextTable.lines(header: header, rows: rows, rightAligned: 1...8) { Output.standard.line(line) }
    }

    private static func row(_ path: String, _ total: Total) -> [String] {
        func fixed(_ value: Double, _ digits: Int) -> String {
            var power = 1.0
            for _ in 0..<digits { power *= 10 }
            return "\((value * power).rounded() / power)"
        }
        let jobs = Double(max(total.jobs, 1))
        // Every state at the highest rate that is allowed would be four a second.
        let ceiling = max(4 * total.seconds, 1)
        return [
            String(path.split(separator: "/").last ?? ""), "\(total.jobs)", fixed(Double(total.ticks) / jobs, 1),
            fixed(Double(total.messages) / jobs, 1), fixed(Double(total.messages) / max(total.seconds, 1), 2),
            "\(fixed(100 * (1 - Double(total.messages) / ceiling), 0)) %", "\(fixed(100 * total.exact / jobs, 2)) %",
            "\(fixed(100 * total.drawn / jobs, 2)) %", fixed(total.jump, 2),
        ]
    }

    /// One job, in steps of 50 ms; the first 40 % of a file would be cold, so all jobs count the same here.
    private func play(_ trace: TraceJob, _ statistics: inout LearnedStatistics, _ total: inout Total) {
        var sender = trace.tracker(statistics)
        var teller = trace.tracker(statistics)
        var schedule = ReportSchedule()
        var events = trace.events[...]
        var sent: (state: ProgressState, atMs: Int)?
        var wake = 0
        var worst = (exact: 0.0, drawn: 0.0)
        let endMs = TraceTime.ms(trace.duration)
        total.jobs += 1
        total.seconds += trace.duration
        for now in stride(from: 0, to: endMs, by: 50) {
            var hasNews = false
            while let event = events.first, TraceTime.ms(event.t) <= now {
                events.removeFirst()
                sender.apply(event.update, atMs: TraceTime.ms(event.t))
                teller.apply(event.update, atMs: TraceTime.ms(event.t))
                if event.update.step != nil { total.ticks += 1 }
                hasNews = true
            }
            if hasNews || now >= wake {
                let state = sender.state(atMs: now)
                switch schedule.decide(state, atMs: now) {
                case .sendNow:
                    if let sent {
                        total.jump = max(total.jump, abs(state.percent - ReportSchedule.drawnPercent(sent.state, sinceMs: now - sent.atMs)))
                    }
                    schedule.sent(state, atMs: now)
                    sender.published(state, atMs: now)
                    sent = (state, now)
                    total.messages += 1
                    wake = now + 50
                case .wait(let until): wake = until
                case .nothing: wake = now + 1000
                }
            }
            let truth = Double(now) / Double(endMs)
            let told = teller.state(atMs: now)
            teller.published(told, atMs: now)
            worst.exact = max(worst.exact, abs(told.percent / 100 - truth))
            let drawn = sent.map { ReportSchedule.drawnPercent($0.state, sinceMs: now - $0.atMs) } ?? 0
            worst.drawn = max(worst.drawn, abs(drawn / 100 - truth))
        }
        total.exact += worst.exact
        total.drawn += worst.drawn
        statistics.learn(teller.finish(atMs: endMs))
    }
}
