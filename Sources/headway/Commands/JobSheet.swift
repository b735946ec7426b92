import FoundationEssentials
import ProgressCore

#if canImport(Glibc)
    import Glibc
#endif

/// What `headway show` prints of a job: its event and the fields around it, in words.
struct JobSheet {
    private struct Record: Decodable {
        var job: String?
        var owner: String?
        var priority: Int?
        var worker: String?
        var maxAttempts: Int?
        var createdAt: Int?
        var startedAt: Int?
        var updatedAt: Int?
        var finishedAt: Int?
        var expiresAt: Int?
        var retryOf: String?
        var retriedAs: String?

        enum CodingKeys: String, CodingKey {
            case job, owner, priority, worker
            case maxAttempts = "max_attempts"
            case createdAt = "created_at"
            case startedAt = "started_at"
            case updatedAt = "updated_at"
            case finishedAt = "finished_at"
            case expiresAt = "expires_at"
            case retryOf = "retry_of"
            case retriedAs = "retried_as"
        }
    }

    private let record: Record
    private let event: JobEvent

    /// Nil when `json` is no answer to a GET of a job.
    init?(json: String) {
        guard let event = JobEvent.parse(json), let record = try? JSONDecoder().decode(Record.self, from: Data(json.utf8)) else {
            return nil
        }
        self.record = record
        self.event = event
    }

    func lines(now: Int) -> [String] {
        var view = JobView(job: event.job ?? "")
        _ = view.apply(event, at: .zero)
        var rows: [(String, String?)] = [
            ("job", event.job),
            ("phase", view.end == nil ? ProgressText.phase(of: view) : ProgressText.end(of: view)),
            ("progress", progress),
            (
                "remaining",
                view.end == nil && event.phase != .queued ? ProgressText.eta(of: event, ageMs: event.at.map { max(0, now - $0) } ?? 0) : nil
            ),
            ("wait", ProgressText.start(of: view, at: .zero)),
            ("message", view.end == nil ? event.message : nil),
            ("queue", event.queue), ("pipeline", event.pipeline), ("owner", record.owner),
            ("priority", record.priority.map(String.init)),
            ("attempt", event.attempt.map { "\($0)" + (record.maxAttempts.map { " of \($0)" } ?? "") }),
            ("worker", record.worker.flatMap { $0.isEmpty ? nil : $0 }),
        ]
        let times: [(String, Int?)] = [
            ("created", record.createdAt), ("started", record.startedAt), ("updated", record.updatedAt ?? event.at),
            ("finished", record.finishedAt), ("expires", view.end == nil ? record.expiresAt : nil),
        ]
        rows += times.map { ($0.0, $0.1.flatMap { $0 > 0 ? Self.time($0, now: now) : nil }) }
        rows += [("retry of", record.retryOf), ("retried as", record.retriedAs)]
        for file in event.result?.files ?? [] { rows.append(("file", "\(file.name)" + (file.bytes.map { "  \($0) bytes" } ?? ""))) }
        let width = rows.map(\.0.count).max() ?? 0
        return rows.compactMap { name, value in
            guard let value, !value.isEmpty else { return nil }
            return name + String(repeating: " ", count: width - name.count + 2) + TextWidth.printable(value)
        }
    }

    private var progress: String {
        let percent = min(max(event.percent ?? 0, 0), 100)
        let filled = Int(percent / 5)
        let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: 20 - filled)
        let stage = ProgressText.stage(of: event)
        return "\(bar) \(ProgressText.percent(percent))" + (stage.isEmpty ? "" : "  \(stage)")
    }

    /// Local time, and how far that is from now: `2026-01-01 12:00:00, 3 min ago`.
    static func time(_ unixMs: Int, now: Int) -> String {
        var seconds = time_t(unixMs / 1000)
        var parts = tm()
        localtime_r(&seconds, &parts)
        var text = [CChar](repeating: 0, count: 32)
        let count = strftime(&text, text.count, "%Y-%m-%d %H:%M:%S", &parts)
        let clock = String(decoding: text.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let distance = DurationText.readable(milliseconds: abs(now - unixMs))
        return unixMs <= now ? "\(clock), \(distance) ago" : "\(clock), in \(distance)"
    }

    static func nowMs() -> Int { Int(Date().timeIntervalSince1970 * 1000) }
}
