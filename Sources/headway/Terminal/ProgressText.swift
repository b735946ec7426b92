import ProgressCore

/// What is said about a job in words: the same for bars and for plain lines.
enum ProgressText {
    /// `about 40 s`, `1–2 min` or `up to 20 s` when the interval is wide, `estimating`, `stalled`; nil when there is nothing to say.
    /// - Parameter ageMs: Time since the estimate was made.
    static func eta(of event: JobEvent, ageMs: Int) -> String? {
        if event.stalled == true { return "stalled" }
        if event.estimating == true { return "estimating" }
        guard let eta = event.etaMs else { return nil }
        let left = max(0, eta - ageMs)
        if let low = event.etaLowMs, let high = event.etaHighMs, low >= 0, high > low {
            let (low, high) = (max(0, low - ageMs), max(0, high - ageMs))
            // 80 % intervals narrower than this read as one number.
            if Double(high) > 1.6 * Double(max(low, 1)), high - low > 5000, let range = range(lowMs: low, highMs: high) { return range }
        }
        return "about \(rounded(left))"
    }

    /// To about one part in ten: 7 s, 40 s, 3 min, 1 h 10 min.
    static func rounded(_ milliseconds: Int) -> String {
        let seconds = max(1, (milliseconds + 500) / 1000)
        switch seconds {
        case ..<10: return "\(seconds) s"
        case ..<58: return "\((seconds + 2) / 5 * 5) s"
        case ..<600: return DurationText.readable(milliseconds: (seconds + 5) / 10 * 10_000)
        default: return DurationText.readable(milliseconds: (seconds + 30) / 60 * 60_000)
        }
    }

    /// Both ends in the unit of the upper one; nil when they read the same.
    private static func range(lowMs: Int, highMs: Int) -> String? {
        let units: [(name: String, ms: Int)] = [("h", 3_600_000), ("min", 60_000), ("s", 5000)]
        for unit in units where highMs >= unit.ms * 2 || unit.name == "s" {
            let low = lowMs / unit.ms
            let high = (highMs + unit.ms - 1) / unit.ms
            guard low < high else { return nil }
            let scale = unit.name == "s" ? 5 : 1
            return low == 0 ? "up to \(high * scale) \(unit.name)" : "\(low * scale)–\(high * scale) \(unit.name)"
        }
        return nil
    }

    /// `GENERATING`, and for a waiting job its place in the line: `QUEUED, 3 ahead`, `QUEUED, next, no worker takes such jobs`.
    static func phase(of view: JobView) -> String {
        guard let event = view.event, let phase = event.phase else { return "waiting for the job" }
        if phase == .queued, let place = view.place?.event {
            return (["QUEUED", self.place(place), reason(place.reason)] as [String?]).compactMap(\.self).joined(separator: ", ")
        }
        return event.cancel == nil ? phase.rawValue : "\(phase.rawValue), cancelling"
    }

    private static func place(_ event: JobEvent) -> String? {
        if event.heldBy != nil {
            let ahead = event.ownAhead ?? 0
            return "at your limit of running jobs" + (ahead == 0 ? "" : ", \(ahead) of yours first")
        }
        if let due = event.dueAt { return event.at.map { "due in \(rounded(max(0, due - $0)))" } ?? "not due yet" }
        guard let ahead = event.queueAhead ?? event.queuePosition else { return nil }
        return ahead == 0 ? "next" : "\(ahead) ahead"
    }

    /// Why there is no time, unless the place says it.
    private static func reason(_ code: String?) -> String? {
        switch code {
        case "no_worker": "no worker takes such jobs"
        case "paused": "the queue is paused"
        case "learning": "too early to say when"
        default: nil
        }
    }

    /// When a waiting job begins: `starts in about 40 s`; nil when nobody knows.
    static func start(of view: JobView, at now: Duration) -> String? {
        guard view.event?.phase == .queued, let place = view.place, place.event.etaMs != nil else { return nil }
        let age = max(0, DurationText.milliseconds(now - place.at))
        if let eta = place.event.etaMs, eta - age < 1000, (place.event.etaHighMs ?? 0) - age < 5000 { return "starts any moment" }
        return eta(of: place.event, ageMs: age).map { "starts in \($0)" }
    }

    /// `shape_generation 21/50`, `item 2 of 4`, of a group how far its children are; empty when the event says nothing of it.
    static func stage(of event: JobEvent) -> String {
        var parts: [String] = []
        if let children = event.children { parts.append(self.children(children)) }
        if let stage = event.stage { parts.append(stage) }
        if let step = event.step, let steps = event.steps, steps > 0 { parts.append("\(step)/\(steps)") }
        if let item = event.item, let items = event.items, items > 1 { parts.append("item \(item) of \(items)") }
        return parts.joined(separator: " ")
    }

    /// `3 of 5 done, 1 running, 1 failed`.
    static func children(_ counts: JobEvent.Children) -> String {
        let others = [(counts.running, "running"), (counts.waiting, "waiting"), (counts.failed, "failed"), (counts.cancelled, "cancelled")]
        let rest = others.compactMap { count, word in count.flatMap { $0 > 0 ? "\($0) \(word)" : nil } }
        return (["\(counts.complete ?? 0) of \(counts.expected) done"] + rest).joined(separator: ", ")
    }

    /// One decimal, always: `61.3 %`.
    static func percent(_ value: Double) -> String {
        let tenths = Int((min(max(value, 0), 100) * 10).rounded(.down))
        return "\(tenths / 10).\(tenths % 10) %"
    }

    /// How a job ended, in one line.
    static func end(of view: JobView) -> String {
        let duration = view.event?.durationMs.map { " in \(DurationText.precise(milliseconds: $0))" } ?? ""
        switch view.end {
        case .complete: return "COMPLETE\(duration)"
        case .failed:
            let error = view.event?.error
            let reason = [error?.code, error?.message].compactMap(\.self).joined(separator: ": ")
            return "FAILED\(duration)" + (reason.isEmpty ? "" : ": \(reason)")
        case .cancelled:
            let by = view.event?.cancel?.by.map { " by \($0)" } ?? ""
            return "CANCELLED\(by)\(duration)" + (view.event?.cancel?.reason.map { ": \($0)" } ?? "")
        case .absent: return "no such job, or no longer kept"
        case .linkLost: return "no word from the gateway any more"
        case .refused(let error): return error.message
        case nil: return ""
        }
    }
}
