public import ProgressCore

/// How long the jobs of one queue wait, place by place: made by one process, read by all.
public struct WaitFrame: Sendable, Hashable {
    /// What is said of the line in one partition.
    public struct Line: Sendable, Hashable {
        /// Holds for every place.
        public var reason: WaitReason?
        /// By place, the next job first.
        public var places: [WaitOutlook]

        public init(reason: WaitReason? = nil, places: [WaitOutlook] = []) {
            self.reason = reason
            self.places = places
        }
    }

    public var lines: [Line]

    public init(lines: [Line]) { self.lines = lines }

    /// What is said of a job at `place`; nil when nothing is known yet.
    public static func outlook(_ frame: WaitFrame?, at place: JobPlace, partition: Int) -> WaitOutlook? {
        switch place {
        case .heldByTenantLimit: return .unknown(.tenantLimit)
        case .notDue: return .unknown(.notDue)
        case .inLine(let ahead):
            guard let lines = frame?.lines, lines.indices.contains(partition) else { return nil }
            let line = lines[partition]
            if let reason = line.reason { return .unknown(reason) }
            if line.places.indices.contains(ahead) { return line.places[ahead] }
            // It came after the forecast was made, or stands too far back.
            return ahead < StoreLimits.forecastPlaces(partitions: lines.count) ? nil : .unknown(.farBack)
        }
    }

    // MARK: As text

    /// `1`, then a line per partition: its reason or `-`, then a word per place: `wait,low,high` or a reason.
    var text: String {
        "1"
            + lines.map { line in
                "\n" + (line.reason?.rawValue ?? "-")
                    + line.places.map { place in
                        switch place {
                        case .wait(let ms, let lowMs, let highMs): " \(ms),\(lowMs),\(highMs)"
                        case .unknown(let reason): " \(reason.rawValue)"
                        }
                    }.joined()
            }.joined()
    }

    /// Nil for what is no frame of this version.
    init?(text: String) {
        let rows = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard rows.count > 1, rows[0] == "1", rows.count <= Keys.maximumPartitions + 1 else { return nil }
        lines = []
        for row in rows.dropFirst() {
            let words = row.split(separator: " ")
            guard let first = words.first, words.count <= ProgressLimits.forecastPositions + 1 else { return nil }
            let reason = WaitReason(rawValue: String(first))
            guard first == "-" || reason != nil else { return nil }
            var line = Line(reason: reason)
            for word in words.dropFirst() {
                guard let place = Self.place(word) else { return nil }
                line.places.append(place)
            }
            lines.append(line)
        }
    }

    private static func place(_ word: Substring) -> WaitOutlook? {
        if let reason = WaitReason(rawValue: String(word)) { return .unknown(reason) }
        let numbers = word.split(separator: ",").compactMap { Int($0) }
        guard numbers.count == 3, numbers.allSatisfy({ (0...ProgressLimits.durationMs).contains($0) }) else { return nil }
        return .wait(ms: numbers[0], lowMs: numbers[1], highMs: numbers[2])
    }
}

extension WaitOutlook {
    /// The members of an event or a snapshot, each with a comma before it.
    public var members: String {
        switch self {
        case .wait(let ms, let lowMs, let highMs): ",\"eta_ms\":\(ms),\"eta_low_ms\":\(lowMs),\"eta_high_ms\":\(highMs)"
        case .unknown(let reason): ",\"reason\":\"\(reason.rawValue)\""
        }
    }
}

extension JobPlace {
    /// The members of an event or a snapshot, each with a comma before it.
    public var members: String {
        switch self {
        case .inLine(let ahead): ",\"queue_position\":\(ahead),\"queue_ahead\":\(ahead)"
        case .heldByTenantLimit(let ownAhead): ",\"held_by\":\"tenant_limit\",\"own_ahead\":\(ownAhead)"
        case .notDue(let atMs): ",\"due_at\":\(atMs)"
        }
    }
}
