import Synchronization

/// A number that only grows.
public final class Counter: Sendable {
    private let count = Atomic<Int>(0)

    public func increment(by amount: Int = 1) { count.wrappingAdd(amount, ordering: .relaxed) }

    /// The count since the process started.
    public var value: Int { count.load(ordering: .relaxed) }
}

/// A number that goes up and down.
public final class Gauge: Sendable {
    private let level = Atomic<Int>(0)

    public func set(_ value: Int) { level.store(value, ordering: .relaxed) }
    public func add(_ amount: Int) { level.wrappingAdd(amount, ordering: .relaxed) }
    public var value: Int { level.load(ordering: .relaxed) }
}

/// Durations in cumulative buckets, exposed in seconds as Prometheus wants them.
public final class Histogram: Sendable {
    /// Upper bounds in microseconds, ascending.
    public let boundsUs: [Int]
    private let state: Mutex<(counts: [Int], sumUs: Int)>

    /// 0.5 ms … 10 s: wide enough for a stalled Redis, fine enough for single milliseconds.
    public static let defaultBoundsUs = [500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 500_000, 1_000_000, 10_000_000]

    init(boundsUs: [Int]) {
        self.boundsUs = boundsUs
        self.state = Mutex((Array(repeating: 0, count: boundsUs.count + 1), 0))
    }

    public func record(microseconds: Int) {
        let index = boundsUs.firstIndex { microseconds <= $0 } ?? boundsUs.count
        state.withLock {
            $0.counts[index] += 1
            $0.sumUs += microseconds
        }
    }

    /// Counts per bucket (not cumulative; the last is above every bound) and the sum of all values.
    public var snapshot: (counts: [Int], sumUs: Int) { state.withLock { $0 } }
}

/// All metrics of one process and their Prometheus text exposition (format 0.0.4).
///
/// Ask once at start and keep the object: an update is an atomic add. Label values come from closed sets, never from a
/// job id or a URL, so nobody outside can mint series.
public final class MetricsRegistry: Sendable {
    private enum Instrument: Sendable {
        case counter(Counter)
        case gauge(Gauge)
        case histogram(Histogram)

        var type: String {
            switch self {
            case .counter: "counter"
            case .gauge: "gauge"
            case .histogram: "histogram"
            }
        }
    }

    private struct Family: Sendable {
        let help: String
        let type: String
        var series: [(labels: String, instrument: Instrument)]
    }

    private let families = Mutex<[String: Family]>([:])

    public init() {}

    public func counter(_ name: String, help: String, labels: KeyValuePairs<String, String> = [:]) -> Counter {
        guard case .counter(let counter) = instrument(name, help, labels, make: { .counter(Counter()) }) else {
            preconditionFailure("metric \(name) exists with another type")
        }
        return counter
    }

    public func gauge(_ name: String, help: String, labels: KeyValuePairs<String, String> = [:]) -> Gauge {
        guard case .gauge(let gauge) = instrument(name, help, labels, make: { .gauge(Gauge()) }) else {
            preconditionFailure("metric \(name) exists with another type")
        }
        return gauge
    }

    public func histogram(
        _ name: String,
        help: String,
        labels: KeyValuePairs<String, String> = [:],
        boundsUs: [Int] = Histogram.defaultBoundsUs
    ) -> Histogram {
        guard case .histogram(let histogram) = instrument(name, help, labels, make: { .histogram(Histogram(boundsUs: boundsUs)) }) else {
            preconditionFailure("metric \(name) exists with another type")
        }
        return histogram
    }

    private func instrument(
        _ name: String,
        _ help: String,
        _ labels: KeyValuePairs<String, String>,
        make: () -> Instrument
    ) -> Instrument {
        let key = labels.map { "\($0.key)=\"\(Self.escaped($0.value))\"" }.joined(separator: ",")
        return families.withLock { families in
            if let known = families[name]?.series.first(where: { $0.labels == key }) { return known.instrument }
            let made = make()
            families[name, default: Family(help: help, type: made.type, series: [])].series.append((key, made))
            return made
        }
    }

    /// The text of `/metrics`.
    public func exposition() -> String {
        let families = families.withLock { $0 }
        var text = ""
        for (name, family) in families.sorted(by: { $0.key < $1.key }) {
            text += "# HELP \(name) \(family.help)\n# TYPE \(name) \(family.type)\n"
            for series in family.series {
                Self.append(name: name, labels: series.labels, instrument: series.instrument, to: &text)
            }
        }
        return text
    }

    private static func append(name: String, labels: String, instrument: Instrument, to text: inout String) {
        let braces = labels.isEmpty ? "" : "{\(labels)}"
        switch instrument {
        case .counter(let counter): text += "\(name)\(braces) \(counter.value)\n"
        case .gauge(let gauge): text += "\(name)\(braces) \(gauge.value)\n"
        case .histogram(let histogram):
            let (counts, sumUs) = histogram.snapshot
            let prefix = labels.isEmpty ? "" : labels + ","
            var total = 0
            for (bound, count) in zip(histogram.boundsUs, counts) {
                total += count
                text += "\(name)_bucket{\(prefix)le=\"\(Double(bound) / 1_000_000)\"} \(total)\n"
            }
            total += counts[counts.count - 1]
            text += "\(name)_bucket{\(prefix)le=\"+Inf\"} \(total)\n"
            text += "\(name)_sum\(braces) \(Double(sumUs) / 1_000_000)\n\(name)_count\(braces) \(total)\n"
        }
    }

    private static func escaped(_ value: String) -> String {
        var out = ""
        for character in value {
            switch character {
            case "\\": out += "\\\\"
            case "\"": out += "\\\""
            case "\n": out += "\\n"
            default: out.append(character)
            }
        }
        return out
    }
}
