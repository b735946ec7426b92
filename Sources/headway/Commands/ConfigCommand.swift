import ArgumentParser
import JobStore

/// `headway config`: documents every setting with the value it has now, as a settings file.
struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config",
        abstract: "List every setting: its key, flag, environment name, rule and present value. The output is a valid settings file."
    )

    @OptionGroup var common: CommonOptions

    func run() throws {
        let reader = try common.reader([])
        Output.standard.write(SettingsDocument.text(reader))
    }
}

/// Writes the table of settings as a commented settings file.
enum SettingsDocument {
    static func text(_ reader: SettingsReader, table: [SettingInfo] = Settings.all) -> String {
        var out = "# Settings of headway. A flag wins over the environment, the environment over this file.\n"
        var sections: [String] = []
        for info in table {
            let section = String(info.key.prefix { $0 != "." })
            if !sections.contains(section) { sections.append(section) }
        }
        for section in sections {
            let members = table.filter { $0.key == section || $0.key.hasPrefix(section + ".") }
            let isFlat = members.first?.key == section
            out += isFlat ? "\n" : "\n\(section):\n"
            for info in members { out += entry(info, reader, indent: isFlat ? "" : "  ") }
        }
        return out
    }

    private static func entry(_ info: SettingInfo, _ reader: SettingsReader, indent: String) -> String {
        let flag = info.flag.map { "flag \($0), " } ?? ""
        let name = info.key.split(separator: ".").last.map(String.init) ?? info.key
        var out = "\(indent)# \(info.help)\n\(indent)# \(flag)environment \(info.environmentName); \(info.allowed)\n"
        let source = reader.source(of: info)
        switch reader.raw(of: info) {
        case nil: out += "\(indent)# \(name): (not set)\n"
        case .some where info.isSecret: out += "\(indent)# \(name): (set by \(source), not shown)\n"
        case .some(let raw): out += "\(indent)\(name): \(yaml(raw, info))\(source == "default" ? "" : "  # by \(source)")\n"
        }
        return out
    }

    /// JSON strings are YAML strings, so quoting is theirs.
    private static func yaml(_ raw: RawValue, _ info: SettingInfo) -> String {
        switch raw {
        case .scalar(let text): info.key == Settings.redisURL.info.key ? JSONText.quoted(hidingPassword(text)) : JSONText.quoted(text)
        case .list(let items): "[" + items.map(JSONText.quoted).joined(separator: ", ") + "]"
        }
    }

    /// `redis://user:secret@host` without the secret.
    static func hidingPassword(_ url: String) -> String {
        guard let scheme = url.firstRange(of: "://"), let at = url.lastIndex(of: "@"), scheme.upperBound <= at else { return url }
        let user = url[scheme.upperBound..<at].prefix { $0 != ":" }
        return url[..<scheme.upperBound] + user + ":***" + url[at...]
    }
}
