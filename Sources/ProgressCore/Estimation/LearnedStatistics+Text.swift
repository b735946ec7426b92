/// The spelling of statistics in Redis and in exports: a name and a text for each field.
extension LearnedStatistics {
    enum FieldName {
        static let version = "v"
        static let jobs = "jobs"
        static let calibration = "z"
        static let lastWorker = "last"
        static let routes = "q"
    }

    /// All fields, sorted by name; numbers as Swift prints them, the shortest text that reads as the same number.
    public var fieldTexts: [(name: String, text: String)] {
        guard jobs > 0 else { return [] }
        var list: [(name: String, text: String)] = [
            (FieldName.version, "\(Self.version)"), (FieldName.jobs, "\(jobs)"),
            (FieldName.calibration, Self.text(calibration.values)),
        ]
        if !lastWorker.isEmpty { list.append((FieldName.lastWorker, lastWorker)) }
        if !routes.isEmpty {
            list.append((FieldName.routes, routes.map { "\($0.weight) \($0.route.text)" }.joined(separator: "\n")))
        }
        for (name, field) in fields { list.append((name, Self.text(field.values) + " \(field.stamp)")) }
        return list.sorted { $0.name < $1.name }
    }

    /// Reads fields as `fieldTexts` and `learn.lua` write them. What is malformed is left out: losing a part of what was
    /// learned is harmless, a forecast made of garbage is not. Another version reads as nothing learned.
    public init(fieldTexts: some Sequence<(name: String, text: String)>) {
        var version = 0
        for (name, text) in fieldTexts {
            switch name {
            case FieldName.version: version = Int(text) ?? 0
            case FieldName.jobs: jobs = Int(text).map { min(max($0, 0), ProgressLimits.statisticsJobs) } ?? 0
            case FieldName.calibration: calibration = IntervalCalibration(values: Self.numbers(text) ?? []) ?? IntervalCalibration()
            case FieldName.lastWorker: lastWorker = StageName.sanitised(text) ?? ""
            case FieldName.routes: readRoutes(text)
            default: readField(name, text)
            }
        }
        if version != Self.version || jobs == 0 { self = LearnedStatistics() }
        trim()
    }

    private mutating func readField(_ name: String, _ text: String) {
        guard let width = StageKey.width(of: name), fields.count < 2 * ProgressLimits.statisticsFields else { return }
        guard var numbers = Self.numbers(text), numbers.count == width + 1, let stamp = numbers.popLast() else { return }
        guard stamp >= 0, stamp <= Double(ProgressLimits.statisticsJobs), name.hasPrefix("w|") || numbers[0] >= 0 else { return }
        fields[name] = Field(values: numbers, stamp: Int(stamp))
    }

    private mutating func readRoutes(_ text: String) {
        for line in text.split(separator: "\n").prefix(ProgressLimits.routes) {
            guard let space = line.firstIndex(of: " "), let weight = Double(line[..<space]), weight > 0, weight.isFinite else { continue }
            guard let route = StageRoute(text: String(line[line.index(after: space)...])) else { continue }
            guard route.names.count <= ProgressLimits.stages, !routes.contains(where: { $0.route == route }) else { continue }
            routes.append(WeightedRoute(route: route, weight: min(weight, ProgressLimits.statisticsMagnitude)))
        }
        sortRoutes()
    }

    static func text(_ values: [Double]) -> String { values.map { "\($0)" }.joined(separator: " ") }

    /// Nil when one of them is no finite number of reasonable size.
    static func numbers(_ text: String) -> [Double]? {
        var numbers: [Double] = []
        for word in text.split(separator: " ") {
            guard let number = Double(word), abs(number) <= ProgressLimits.statisticsMagnitude else { return nil }
            numbers.append(number)
        }
        return numbers
    }

    // MARK: Export

    private static let exportHead = "headway-statistics"

    /// A text file of what was learned for `pipeline`: a head with the version, then a line per field.
    public func exported(pipeline: String) -> String {
        var lines = ["\(Self.exportHead) \(Self.version) \(pipeline)"]
        for field in fieldTexts { lines.append("\(field.name)\t\(field.text.replacing("\n", with: "\t"))") }
        return lines.joined(separator: "\n") + "\n"
    }

    /// Reads an export.
    ///
    /// - Throws: `StatisticsError` that names the line.
    public static func imported(_ text: String) throws(StatisticsError) -> (pipeline: String, statistics: LearnedStatistics) {
        var pipeline: String?
        var list: [(name: String, text: String)] = []
        for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() where !line.isEmpty {
            if pipeline == nil {
                let words = line.split(separator: " ", maxSplits: 2)
                guard words.count == 3, words[0] == exportHead else {
                    throw StatisticsError(line: number + 1, message: "is not the head of an export: '\(exportHead) \(version) PIPELINE'")
                }
                guard words[1] == "\(version)" else {
                    throw StatisticsError(line: number + 1, message: "has version \(words[1].prefix(20)); this program reads \(version)")
                }
                pipeline = String(words[2])
                continue
            }
            guard let tab = line.firstIndex(of: "\t") else {
                throw StatisticsError(line: number + 1, message: "has no tab between name and value")
            }
            list.append((String(line[..<tab]), String(line[line.index(after: tab)...].replacing("\t", with: "\n"))))
        }
        guard let pipeline else { throw StatisticsError(line: 1, message: "is missing: the file is empty") }
        let statistics = LearnedStatistics(fieldTexts: list)
        guard statistics.fieldTexts.count == list.count else {
            throw StatisticsError(
                line: 2,
                message: "or a later one is damaged: \(list.count) fields given, \(statistics.fieldTexts.count) usable"
            )
        }
        return (pipeline, statistics)
    }
}

/// Why an export cannot be read.
public struct StatisticsError: Error, Sendable, Hashable, CustomStringConvertible {
    public let line: Int
    public let message: String

    public var description: String { "line \(line) \(message)" }
}
