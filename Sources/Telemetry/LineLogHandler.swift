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
        if let given = event.metadata { all.merge(given) { _, new in new } }
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

    /// Messages line up behind every level but `critical`.
    private static let levelColumn = 7

    mutating func text(timeMs: Int, level: Logger.Level, message: String, metadata: Logger.Metadata) {
        bytes.reserveCapacity(160)
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
            let rendered = Self.limited(value.description)
            let needsQuotes = rendered.isEmpty || rendered.utf8.contains { $0 <= 0x20 || $0 == 0x22 || $0 == 0x3d || $0 == 0x7f }
            if needsQuotes { raw("\"") }
            escape(rendered, quotes: needsQuotes)
            if needsQuotes { raw("\"") }
        }
        raw("\n")
    }

    mutating func json(timeMs: Int, level: Logger.Level, label: String, message: String, metadata: Logger.Metadata) {
        raw("{\"time\":\"")
        time(timeMs)
        raw("\",\"level\":\"\(level.rawValue)\",\"logger\":\"")
        escape(label, quotes: true)
        raw("\",\"message\":\"")
        escape(message, quotes: true)
        raw("\"")
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
            raw(",\"")
            escape(key, quotes: true)
            raw("\":\"")
            escape(Self.limited(value.description), quotes: true)
            raw("\"")
        }
        raw("}\n")
    }

    private mutating func raw(_ text: String) { bytes.append(contentsOf: text.utf8) }

    /// Control characters (C0, DEL, C1) and the Unicode line separators are escaped as JSON does; with `quotes` also `"` and `\`.
    private mutating func escape(_ text: String, quotes: Bool) {
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
        var seconds = time_t(unixMs / 1000)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        number(Int(parts.tm_year) + 1900, 4)
        raw("-")
        number(Int(parts.tm_mon) + 1, 2)
        raw("-")
        number(Int(parts.tm_mday), 2)
        raw("T")
        number(Int(parts.tm_hour), 2)
        raw(":")
        number(Int(parts.tm_min), 2)
        raw(":")
        number(Int(parts.tm_sec), 2)
        raw(".")
        number(unixMs % 1000, 3)
        raw("Z")
    }

    private mutating func number(_ value: Int, _ digits: Int) {
        let text = String(value)
        for _ in text.utf8.count..<max(digits, text.utf8.count) { bytes.append(0x30) }
        raw(text)
    }
}
