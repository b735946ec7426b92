import ProgressCore

/// Chooses and writes the lines for output that is no terminal: every milestone, and states at most once a second per job.
struct PlainLines: Sendable {
    private var lastLineAt: [String: Duration] = [:]
    private var lastText: [String: String] = [:]
    /// With several jobs each line begins with the id.
    let namesJobs: Bool

    init(namesJobs: Bool) { self.namesJobs = namesJobs }

    /// The line to print for a change, or nil.
    mutating func line(for view: JobView, change: JobView.Change, now: Duration) -> String? {
        switch change {
        case .none: return nil
        case .state:
            if let last = lastLineAt[view.job], now - last < Limits.plainLineInterval { return nil }
        case .milestone: break
        }
        let text = text(of: view, now: now)
        guard lastText[view.job] != text else { return nil }
        lastText[view.job] = text
        lastLineAt[view.job] = now
        let job = namesJobs ? "\(view.job)  " : ""
        return TextWidth.printable("\(job)\(text)")
    }

    private func text(of view: JobView, now: Duration) -> String {
        if view.end != nil { return ProgressText.end(of: view) }
        var parts = [ProgressText.phase(of: view)]
        if view.isDegraded { parts.append("(the gateway has lost its Redis)") }
        if let start = ProgressText.start(of: view, at: now) { parts.append(start) }
        if let event = view.event, event.phase != .queued {
            parts.append(ProgressText.percent(event.percent ?? 0))
            let stage = ProgressText.stage(of: event)
            if !stage.isEmpty { parts.append(stage) }
            if let attempt = event.attempt, attempt > 1 { parts.append("attempt \(attempt)") }
            if let eta = ProgressText.eta(of: event, ageMs: view.ageMs(at: now)) { parts.append(eta) }
        }
        return parts.joined(separator: "  ")
    }
}
