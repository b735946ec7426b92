import Foundation

/// One line of the table: what was measured, once a round, and what it should be.
struct Figure: Encodable {
    enum Goal {
        case atLeast(Double)
        case atMost(Double)
        case below(String, Double)
        /// Only shown, for comparison.
        case none
    }

    let name: String
    let unit: String
    var rounds: [Double] = []
    var goal = Goal.none

    var median: Double {
        let sorted = rounds.sorted()
        guard !sorted.isEmpty else { return .nan }
        return sorted.count % 2 == 1 ? sorted[sorted.count / 2] : (sorted[sorted.count / 2 - 1] + sorted[sorted.count / 2]) / 2
    }

    var isMet: Bool? {
        switch goal {
        case .atLeast(let bound): median >= bound
        case .atMost(let bound): median <= bound
        case .below(_, let bound): median < bound
        case .none: nil
        }
    }

    private var goalText: String {
        switch goal {
        case .atLeast(let bound): ">= \(Self.text(bound))"
        case .atMost(let bound): "<= \(Self.text(bound))"
        case .below(let who, let bound): "< \(who) \(Self.text(bound))"
        case .none: ""
        }
    }

    var line: String {
        let spread = rounds.count > 1 ? " (\(Self.text(rounds.min() ?? 0))–\(Self.text(rounds.max() ?? 0)))" : ""
        let verdict = isMet.map { $0 ? "met" : "MISSED" } ?? ""
        return Self.padded(name, 58) + Self.padded("\(Self.text(median)) \(unit)\(spread)", 38) + Self.padded(goalText, 16) + verdict
    }

    /// Three significant digits, and every digit of what is larger.
    static func text(_ value: Double) -> String {
        guard value.isFinite else { return "–" }
        if abs(value) >= 100 || value == value.rounded() { return String(format: "%.0f", value) }
        return String(format: abs(value) >= 10 ? "%.1f" : (abs(value) >= 1 ? "%.2f" : "%.3f"), value)
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }

    private enum CodingKeys: String, CodingKey { case name, unit, rounds, median, goal, met }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(unit, forKey: .unit)
        try container.encode(rounds, forKey: .rounds)
        try container.encode(median.isFinite ? median : nil, forKey: .median)
        if let isMet {
            try container.encode(goalText, forKey: .goal)
            try container.encode(isMet, forKey: .met)
        }
    }
}

/// The figures of a run, in the order in which they were first measured.
struct Figures {
    private(set) var all: [Figure] = []

    mutating func add(_ name: String, _ value: Double, _ unit: String, _ goal: Figure.Goal = .none) {
        if let index = all.firstIndex(where: { $0.name == name }) {
            all[index].rounds.append(value)
            all[index].goal = goal
        } else {
            all.append(Figure(name: name, unit: unit, rounds: [value], goal: goal))
        }
    }

    /// Replaces all rounds of one figure.
    mutating func set(_ name: String, _ rounds: [Double], _ unit: String, _ goal: Figure.Goal) {
        all.removeAll { $0.name == name }
        all.append(Figure(name: name, unit: unit, rounds: rounds, goal: goal))
    }

    subscript(_ name: String) -> Figure? { all.first { $0.name == name } }
}

/// Times of single operations.
struct Timings {
    var microseconds: [Double] = []

    /// In milliseconds; `share` 0…1.
    func milliseconds(at share: Double) -> Double {
        let sorted = microseconds.sorted()
        guard !sorted.isEmpty else { return .nan }
        return sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))] / 1000
    }

    /// Times one call.
    mutating func time<R>(_ body: () async throws -> R) async rethrows -> R {
        let start = MachineClock.nanoseconds()
        defer { microseconds.append(Double(MachineClock.nanoseconds() - start) / 1000) }
        return try await body()
    }
}
