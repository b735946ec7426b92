/// A value as a source holds it, before it is understood.
enum RawValue: Sendable, Equatable, CustomStringConvertible {
    case scalar(String)
    case list([String])

    var description: String {
        switch self {
        case .scalar(let text): "\"\(text)\""
        case .list(let items): "[\(items.joined(separator: ", "))]"
        }
    }
}

/// One thing that can be set by a flag, by the environment and by the settings file.
///
/// `key` is its path in the YAML file (`gateway.listen`); the environment name follows from it (`HEADWAY_GATEWAY_LISTEN`).
struct Setting<Value: Sendable>: Sendable {
    let info: SettingInfo
    /// Nil when the value is not what `info.allowed` says.
    let parse: @Sendable (RawValue) -> Value?
}

/// What a setting is called and may hold, without its type: for documentation and for checks of whole files.
struct SettingInfo: Sendable {
    let key: String
    /// The long flag with its dashes, or nil for what must not stand on a command line.
    let flag: String?
    let help: String
    /// What values look like, as an error message says it after "must be".
    let allowed: String
    /// In the spelling of the file; nil: not set unless somebody sets it.
    let defaultValue: RawValue?
    let isSecret: Bool
    let isList: Bool
    let isValid: @Sendable (RawValue) -> Bool

    var environmentName: String { Self.environmentName(of: key) }

    static let environmentPrefix = "HEADWAY_"

    static func environmentName(of key: String) -> String {
        environmentPrefix + key.uppercased().map { $0 == "." ? "_" : String($0) }.joined()
    }
}

extension Setting {
    init(
        _ key: String,
        flag: String?,
        default defaultValue: RawValue? = nil,
        allowed: String,
        isSecret: Bool = false,
        isList: Bool = false,
        help: String,
        parse: @escaping @Sendable (RawValue) -> Value?
    ) {
        self.parse = parse
        info = SettingInfo(
            key: key,
            flag: flag,
            help: help,
            allowed: allowed,
            defaultValue: defaultValue,
            isSecret: isSecret,
            isList: isList,
            isValid: { parse($0) != nil }
        )
    }
}

// MARK: The kinds of values

extension Setting where Value == String {
    static func text(
        _ key: String,
        flag: String?,
        default defaultValue: String? = nil,
        allowed: String = "text",
        isSecret: Bool = false,
        help: String,
        where isAllowed: @escaping @Sendable (String) -> Bool = { _ in true }
    ) -> Self {
        Setting(key, flag: flag, default: defaultValue.map(RawValue.scalar), allowed: allowed, isSecret: isSecret, help: help) { raw in
            guard case .scalar(let text) = raw, !text.isEmpty, isAllowed(text) else { return nil }
            return text
        }
    }
}

extension Setting where Value == [String] {
    /// In the environment a list is separated by commas, in the file it is a YAML list or a single value.
    static func texts(
        _ key: String,
        flag: String?,
        default defaultValue: [String]? = nil,
        allowed: String,
        help: String,
        where isAllowed: @escaping @Sendable (String) -> Bool = { _ in true }
    ) -> Self {
        Setting(key, flag: flag, default: defaultValue.map(RawValue.list), allowed: allowed, isList: true, help: help) { raw in
            let items =
                switch raw {
                case .scalar(let text): [text]
                case .list(let items): items
                }
            return items.allSatisfy { !$0.isEmpty && isAllowed($0) } ? items : nil
        }
    }
}

extension Setting where Value == Bool {
    static func bool(_ key: String, flag: String?, default defaultValue: Bool = false, help: String) -> Self {
        Setting(key, flag: flag, default: .scalar(defaultValue ? "true" : "false"), allowed: "true or false", help: help) { raw in
            switch raw {
            case .scalar("true"): true
            case .scalar("false"): false
            default: nil
            }
        }
    }
}

extension Setting where Value == Int {
    static func integer(_ key: String, flag: String?, default defaultValue: Int?, in range: ClosedRange<Int>, help: String) -> Self {
        Setting(
            key,
            flag: flag,
            default: defaultValue.map { .scalar("\($0)") },
            allowed: "a whole number from \(range.lowerBound) to \(range.upperBound)",
            help: help
        ) { raw in
            guard case .scalar(let text) = raw, let value = Int(text), range.contains(value) else { return nil }
            return value
        }
    }

    /// A number of bytes, as `512M`.
    static func bytes(_ key: String, flag: String?, in range: ClosedRange<Int>, help: String) -> Self {
        Setting(
            key,
            flag: flag,
            allowed:
                "a number of bytes such as 500M or 20G, from \(range.lowerBound) to \(range.upperBound); K, M, G and T are powers of 1024",
            help: help
        ) { raw in
            guard case .scalar(let text) = raw, let last = text.last else { return nil }
            let powers: [Character: Int] = ["K": 10, "M": 20, "G": 30, "T": 40]
            let digits = powers[last] == nil ? text[...] : text.dropLast()
            guard let number = Int(digits), number >= 0 else { return nil }
            let (value, overflow) = number.multipliedReportingOverflow(by: 1 << (powers[last] ?? 0))
            return !overflow && range.contains(value) ? value : nil
        }
    }
}

extension Setting where Value == Double {
    static func number(_ key: String, flag: String?, default defaultValue: String, in range: ClosedRange<Double>, help: String) -> Self {
        Setting(
            key,
            flag: flag,
            default: .scalar(defaultValue),
            allowed: "a number from \(range.lowerBound) to \(range.upperBound)",
            help: help
        ) { raw in
            // A range never contains NaN, so "nan" is refused with the rest.
            guard case .scalar(let text) = raw, let value = Double(text), range.contains(value) else { return nil }
            return value
        }
    }
}

extension Setting where Value == Duration {
    static func duration(
        _ key: String,
        flag: String?,
        default defaultValue: String?,
        in range: ClosedRange<Duration>,
        help: String
    ) -> Self {
        Setting(
            key,
            flag: flag,
            default: defaultValue.map(RawValue.scalar),
            allowed: "a duration from \(DurationText.exact(range.lowerBound)) to \(DurationText.exact(range.upperBound)), "
                + "such as 500ms, 30s, 5m or 1h",
            help: help
        ) { raw in
            guard case .scalar(let text) = raw, let value = DurationText.parse(text), range.contains(value) else { return nil }
            return value
        }
    }
}

extension Setting where Value == ListenAddress {
    static func listen(_ key: String, flag: String?, default defaultValue: String, help: String) -> Self {
        Setting(
            key,
            flag: flag,
            default: .scalar(defaultValue),
            allowed: "HOST:PORT such as 127.0.0.1:8080 or [::1]:8080, port 0 for any free one",
            help: help
        ) { raw in
            guard case .scalar(let text) = raw else { return nil }
            return ListenAddress(text)
        }
    }
}

/// Where a server listens.
struct ListenAddress: Sendable, Equatable {
    let host: String
    let port: Int

    /// `HOST:PORT`, with an IPv6 host in brackets.
    init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        var host = text[..<colon]
        let digits = text[text.index(after: colon)...]
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (48...57).contains($0) }), let port = Int(digits), (0...65535).contains(port)
        else { return nil }
        if host.first == "[" {
            guard host.last == "]" else { return nil }
            host = host.dropFirst().dropLast()
            guard host.contains(":") else { return nil }
        } else if host.contains(":") {
            return nil
        }
        guard !host.isEmpty, !host.contains(where: { $0.isWhitespace || $0 == "/" }) else { return nil }
        self.host = String(host)
        self.port = port
    }
}
