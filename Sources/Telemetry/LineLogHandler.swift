import Glibc
public import Logging

/// One line per event, on standard error: for people `time level message key=value…`, for machines one JSON object.
///
/// Whatever a value holds, it stays on its line: newlines and control bytes are escaped, long values are cut. A line is
/// written with one system call, so that lines of several threads never mix.
public struct LineLogHandler: LogHandler {
    public enum Format: String, Sendable, CaseIterable {
        case text, json
    }

    /// Longest rendered value in bytes: a line must never become a document.
    public static let valueBytes = 2048

    public var logLevel: Logger.Level
    public var metadata: Logger.Metadata = [:]
    public var metadataProvider: Logger.MetadataProvider?

    private let label: String
    private let format: Format
    private let nowMs: @Sendable () -> Int
    private let write: @Sendable ([UInt8]) -> Void

    /// - Parameters:
    ///   - label: the logger's name, written under `logger`.
    ///   - nowMs: Unix milliseconds; a test passes its own clock.
    ///   - write: takes a whole line with its newline; nil writes to standard error.
    public init(
        label: String,
        format: Format = .text,
        level: Logger.Level = .info,
        nowMs: @escaping @Sendable () -> Int = LineLogHandler.wallClockMs,
        write: (@Sendable ([UInt8]) -> Void)? = nil
    ) {
        self.label = label
        self.format = format
        self.logLevel = level
        self.nowMs = nowMs
        self.write = write ?? Self.writeToStandardError
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        var all = metadata
        if let provided = metadataProvider?.get() { all.merge(provided) { _, new in new } }
        if let given = event.metadata {
            // Most loggers have none of their own.
            if all.isEmpty { all = given } else { all.merge(given) { _, new in new } }
        }
        if let error = event.error { all[LogKey.errorMessage] = .string("\(error)") }
        var line = LogLineWriter()
        switch format {
        case .text: line.text(timeMs: nowMs(), level: event.level, message: event.message.description, metadata: all)
        case .json: line.json(timeMs: nowMs(), level: event.level, label: label, message: event.message.description, metadata: all)
        }
        write(line.bytes)
    }

    /// The system's clock, in Unix milliseconds.
    public static func wallClockMs() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    }

    private static func writeToStandardError(_ line: [UInt8]) {
        line.withUnsafeBytes { bytes in
            // Whatever cannot be written is lost: a log must not stop the program it tells about.
            _ = Glibc.write(STDERR_FILENO, bytes.baseAddress, bytes.count)
        }
    }
}

/// Renders one event; pure, so that tests can throw any bytes at it.
struct LogLineWriter {
    private(set) var bytes: [UInt8] = []

    /// Of a line with two or three short values.
    private static let usualBytes = 160

    /// Messages line up behind every level but `critical`.
    private static let levelColumn = 7

    mutating func text(timeMs: Int, level: Logger.Level, message: String, metadata: Logger.Metadata) {
        bytes.reserveCapacity(Self.usualBytes)
        time(timeMs)
        raw(" ")
        let name = level.rawValue
        raw(name)
        for _ in name.utf8.count..<max(Self.levelColumn, name.utf8.count) { bytes.append(0x20) }
        raw(" ")
        escape(message, quotes: false)
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
            raw(" ")
            escape(key, quotes: false)
            raw("=")
            var rendered = Self.rendered(value)
            let needsQuotes = rendered.withUTF8 { text in
                text.isEmpty || text.contains { $0 <= 0x20 || $0 == 0x22 || $0 == 0x3d || $0 == 0x7f }
            }
            if needsQuotes { raw("\"") }
            escape(rendered, quotes: needsQuotes)
            if needsQuotes { raw("\"") }
        }
        raw("\n")
    }

    mutating func json(timeMs: Int, level: Logger.Level, label: String, message: String, metadata: Logger.Metadata) {
        bytes.reserveCapacity(Self.usualBytes)
        raw("{\"time\":\"")
        time(timeMs)
        raw("\",\"level\":\"")
        raw(level.rawValue)
        raw("\",\"logger\":\"")
        escape(label, quotes: true)
        raw("\",\"message\":\"")
        escape(message, quotes: true)
        raw("\"")
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
            raw(",\"")
            escape(key, quotes: true)
            raw("\":\"")
            escape(Self.rendered(value), quotes: true)
            raw("\"")
        }
        raw("}\n")
    }

    private mutating func raw(_ text: String) {
        var text = text
        text.withUTF8 { bytes.append(contentsOf: $0) }
    }

    /// Control characters (C0, DEL, C1) and the Unicode line separators are escaped as JSON does; with `quotes` also `"` and `\`.
    private mutating func escape(_ text: String, quotes: Bool) {
        var text = text
        // ASCII without any of them goes as it is.
        let isPlain = text.withUTF8 { text in
            guard text.allSatisfy({ $0 >= 0x20 && $0 < 0x7f && $0 != 0x5c && !(quotes && $0 == 0x22) }) else { return false }
            bytes.append(contentsOf: text)
            return true
        }
        if isPlain { return }
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x0a: raw("\\n")
            case 0x0d: raw("\\r")
            case 0x09: raw("\\t")
            case 0x22 where quotes: raw("\\\"")
            case 0x5c: raw("\\\\")
            case 0..<0x20, 0x7f..<0xa0, 0x2028, 0x2029:
                let hex = String(scalar.value, radix: 16)
                raw("\\u" + String(repeating: "0", count: 4 - hex.count) + hex)
            default: bytes.append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter)
            }
        }
    }

    private static func rendered(_ value: Logger.MetadataValue) -> String {
        let text =
            switch value {
            case .string(let text): text
            default: value.description
            }
        return limited(text)
    }

    private static func limited(_ text: String) -> String {
        guard text.utf8.count > LineLogHandler.valueBytes else { return text }
        var out = String.UnicodeScalarView()
        var count = 0
        for scalar in text.unicodeScalars {
            count += UTF8.width(scalar)
            if count > LineLogHandler.valueBytes { break }
            out.append(scalar)
        }
        return String(out) + "…"
    }

    /// ISO 8601 in UTC with milliseconds, e.g. `2026-01-31T23:59:59.123Z`.
    private mutating func time(_ unixMs: Int) {
        // Floored, for clocks before 1970.
        let (seconds, ms) = Self.floored(unixMs, 1000)
        let (days, second) = Self.floored(seconds, 86_400)
        let date = Self.date(days)
        // The places of the digits are known, so that the text is appended at once.
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: Self.timeForm.utf8CodeUnitCount) { text in
            for index in text.indices { text.initializeElement(at: index, to: Self.timeForm.utf8Start[index]) }
            func put(_ value: Int, endingAt end: Int, digits: Int) {
                var rest = value
                for index in (end - digits..<end).reversed() {
                    text[index] += UInt8(truncatingIfNeeded: rest % 10)
                    rest /= 10
                }
            }
            put(date.year, endingAt: 4, digits: 4)
            put(date.month, endingAt: 7, digits: 2)
            put(date.day, endingAt: 10, digits: 2)
            put(second / 3600, endingAt: 13, digits: 2)
            put(second / 60 % 60, endingAt: 16, digits: 2)
            put(second % 60, endingAt: 19, digits: 2)
            put(ms, endingAt: 23, digits: 3)
            bytes.append(contentsOf: text)
        }
    }

    private static let timeForm: StaticString = "0000-00-00T00:00:00.000Z"

    private static func floored(_ value: Int, _ divisor: Int) -> (quotient: Int, rest: Int) {
        let (quotient, rest) = value.quotientAndRemainder(dividingBy: divisor)
        return rest < 0 ? (quotient - 1, rest + divisor) : (quotient, rest)
    }

    /// The day that is so many after 1970-01-01, counted in years that begin in March, so that a leap day is the last of its year
    /// (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>). `gmtime_r` takes a lock and the time zone's file.
    private static func date(_ days: Int) -> (year: Int, month: Int, day: Int) {
        let (era, day) = floored(days + 719_468, 146_097)
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365
        let dayOfYear = day - (365 * year + year / 4 - year / 100)
        let month = (5 * dayOfYear + 2) / 153
        return (year + era * 400 + (month < 10 ? 0 : 1), month < 10 ? month + 3 : month - 9, dayOfYear - (153 * month + 2) / 5 + 1)
    }
}
