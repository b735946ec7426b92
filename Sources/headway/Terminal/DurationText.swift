/// Durations as people write and read them.
enum DurationText {
    /// `500ms`, `30s`, `5m`, `1h`, `1.5h`; a number without a unit is refused, because half of its readers would guess wrong.
    static func parse(_ text: String) -> Duration? {
        let units: [(suffix: String, milliseconds: Double)] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]
        for unit in units where text.hasSuffix(unit.suffix) {
            let digits = text.dropLast(unit.suffix.count)
            guard !digits.isEmpty, digits.utf8.allSatisfy({ (48...57).contains($0) || $0 == 46 }), let number = Double(digits)
            else { continue }
            let milliseconds = number * unit.milliseconds
            guard milliseconds <= 1e12 else { return nil }
            return .milliseconds(Int64(milliseconds.rounded()))
        }
        return nil
    }

    /// The spelling `parse` reads back: `30s`, `1500ms`.
    static func exact(_ duration: Duration) -> String {
        let ms = milliseconds(duration)
        for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] where ms >= size && ms % size == 0 {
            return "\(ms / size)\(unit)"
        }
        return "\(ms)ms"
    }

    /// `0 s`, `42 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`: two units at most, rounded to the smaller one.
    static func readable(milliseconds: Int) -> String {
        let seconds = (max(0, milliseconds) + 500) / 1000
        if seconds < 60 { return "\(seconds) s" }
        if seconds < 3600 { return pair(seconds / 60, "min", seconds % 60, "s") }
        let minutes = (seconds + 30) / 60
        if minutes < 1440 { return pair(minutes / 60, "h", minutes % 60, "min") }
        let hours = (minutes + 30) / 60
        return pair(hours / 24, "d", hours % 24, "h")
    }

    /// With tenths below ten seconds: `3.2 s`.
    static func precise(milliseconds: Int) -> String {
        guard (0..<9950).contains(milliseconds) else { return readable(milliseconds: milliseconds) }
        let tenths = (milliseconds + 50) / 100
        return "\(tenths / 10).\(tenths % 10) s"
    }

    static func milliseconds(_ duration: Duration) -> Int {
        let (seconds, attoseconds) = duration.components
        return Int(seconds) * 1000 + Int(attoseconds / 1_000_000_000_000_000)
    }

    private static func pair(_ large: Int, _ largeUnit: String, _ small: Int, _ smallUnit: String) -> String {
        small == 0 ? "\(large) \(largeUnit)" : "\(large) \(largeUnit) \(small) \(smallUnit)"
    }
}
