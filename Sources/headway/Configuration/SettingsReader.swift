/// Reads settings by precedence: flag, environment, file, default.
///
/// Environment and file are checked whole when the reader is made, so that a misspelt name is an error and not a default.
struct SettingsReader: Sendable {
    /// A flag as given on the command line; nil when it was not given.
    struct Flag: Sendable {
        let key: String
        let value: RawValue?

        init<Value>(_ setting: Setting<Value>, _ text: String?) {
            key = setting.info.key
            value = text.map(RawValue.scalar)
        }

        init<Value>(_ setting: Setting<Value>, _ texts: [String]) {
            key = setting.info.key
            value = texts.isEmpty ? nil : .list(texts)
        }

        /// Flags without a value can only switch on.
        init(_ setting: Setting<Bool>, _ isOn: Bool) {
            key = setting.info.key
            value = isOn ? .scalar("true") : nil
        }
    }

    private let flags: [String: RawValue]
    private let environment: [String: String]
    private let file: SettingsFile?

    /// - Parameter environment: The whole environment of the process; names without our prefix are ignored.
    init(flags: [Flag], environment: [String: String], file: SettingsFile?) throws(CommandError) {
        self.flags = flags.reduce(into: [:]) { $0[$1.key] = $1.value }
        // An empty variable counts as not set: compose files and unit files write them so.
        self.environment = environment.filter { $0.key.hasPrefix(SettingInfo.environmentPrefix) && !$0.value.isEmpty }
        self.file = file
        try checkEnvironment()
    }

    /// The value of a setting that has a default.
    func value<Value>(_ setting: Setting<Value>) throws(CommandError) -> Value {
        if let value = try optional(setting) { return value }
        if let raw = setting.info.defaultValue, let value = setting.parse(raw) { return value }
        throw .usage("\(Self.names(of: setting.info)) is needed; it must be \(setting.info.allowed)")
    }

    /// The value somebody set, or nil.
    func optional<Value>(_ setting: Setting<Value>) throws(CommandError) -> Value? {
        let info = setting.info
        if let raw = flags[info.key] {
            return try parse(setting, raw, source: info.flag ?? info.key)
        }
        if let text = environment[info.environmentName] {
            return try parse(setting, Self.raw(fromEnvironment: text, of: info), source: info.environmentName)
        }
        if let found = file?.values[info.key] {
            return try parse(setting, found.value, source: "\(file?.path ?? ""):\(found.line): \(info.key)")
        }
        return nil
    }

    /// Where the value of a key comes from: `flag`, `environment`, `file` or `default`.
    func source(of info: SettingInfo) -> String {
        if flags[info.key] != nil { return "flag" }
        if environment[info.environmentName] != nil { return "environment" }
        return file?.values[info.key] != nil ? "file" : "default"
    }

    /// The raw value a setting has now, for display.
    func raw(of info: SettingInfo) -> RawValue? {
        flags[info.key] ?? environment[info.environmentName].map { Self.raw(fromEnvironment: $0, of: info) }
            ?? file?.values[info.key]?.value ?? info.defaultValue
    }

    private func parse<Value>(_ setting: Setting<Value>, _ raw: RawValue, source: String) throws(CommandError) -> Value {
        if let value = setting.parse(raw) { return value }
        throw Self.refusal(of: raw, setting.info, source: source)
    }

    private func checkEnvironment() throws(CommandError) {
        let known = Dictionary(uniqueKeysWithValues: Settings.all.map { ($0.environmentName, $0) })
        for (name, text) in environment.sorted(by: { $0.key < $1.key }) where !Settings.foreignEnvironmentNames.contains(name) {
            guard let info = known[name] else {
                let hint = Suggestion.nearest(to: name, among: known.keys).map { "; did you mean \($0)?" } ?? ""
                throw .usage("the environment variable \(name) is not a setting\(hint) (`headway config` lists them all)")
            }
            if info.key == Settings.workerCommand.info.key {
                throw .usage("\(name): a command cannot be given by the environment; write it after -- or as worker.command in the file")
            }
            let raw = Self.raw(fromEnvironment: text, of: info)
            if !info.isValid(raw) { throw Self.refusal(of: raw, info, source: name) }
        }
    }

    private static func raw(fromEnvironment text: String, of info: SettingInfo) -> RawValue {
        guard info.isList else { return .scalar(text) }
        return .list(text.split(separator: ",").map { String($0.drop { $0 == " " }) })
    }

    static func refusal(of raw: RawValue, _ info: SettingInfo, source: String) -> CommandError {
        .usage("\(source): \(info.isSecret ? "this" : "\(raw)") is not allowed; it must be \(info.allowed)")
    }

    private static func names(of info: SettingInfo) -> String {
        let others = "\(info.environmentName) or \(info.key) in the settings file"
        return info.flag.map { "\($0) (or \(others))" } ?? others
    }
}

/// Finds what a misspelt name may have meant.
enum Suggestion {
    /// The candidate with the fewest edits (Levenshtein), if it is close enough to be meant.
    static func nearest(to word: String, among candidates: some Sequence<String>) -> String? {
        let limit = max(2, word.count / 4)
        let best = candidates.map { (distance(word, $0), $0) }.min { $0 < $1 }
        guard let best, best.0 <= limit else {
            // `HEADWAY_GATEWAY` for `HEADWAY_GATEWAY_URL`: many edits, yet clearly meant.
            return candidates.filter { $0.hasPrefix(word) || word.hasPrefix($0) }.min()
        }
        return best.1
    }

    private static func distance(_ a: String, _ b: String) -> Int {
        let (a, b) = (Array(a.utf8.prefix(128)), Array(b.utf8.prefix(128)))
        var row = Array(0...b.count)
        for (i, x) in a.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, y) in b.enumerated() {
                let substituted = diagonal + (x == y ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = min(substituted, row[j] + 1, row[j + 1] + 1)
            }
        }
        return row[b.count]
    }
}
