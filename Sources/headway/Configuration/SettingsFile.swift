import Yams

/// A settings file, flattened to keys and checked against the table.
struct SettingsFile: Sendable {
    struct Entry: Sendable {
        let value: RawValue
        let line: Int
    }

    /// As the user named it, for messages.
    let path: String
    let values: [String: Entry]

    /// Refuses unknown keys and values that are not allowed, naming file, line, key and what is allowed.
    init(path: String, yaml: String, table: [SettingInfo] = Settings.all) throws(CommandError) {
        self.path = path
        guard let root = try YAMLDocument.root(of: yaml, path: path) else {
            values = [:]
            return
        }
        var flattener = Flattener(path: path, table: Dictionary(uniqueKeysWithValues: table.map { ($0.key, $0) }))
        try flattener.visit(root, prefix: "")
        values = flattener.values
    }

    private struct Flattener {
        let path: String
        let table: [String: SettingInfo]
        var values: [String: Entry] = [:]

        /// The table is at most two levels deep, so is the recursion: only prefixes of known keys are entered.
        mutating func visit(_ node: Node, prefix: String) throws(CommandError) {
            guard case .mapping(let mapping) = node else {
                let what = prefix.isEmpty ? "the file" : String(prefix.dropLast())
                throw problem(node, "\(what) must be a mapping with the keys \(keys(under: prefix))")
            }
            for (name, child) in mapping {
                guard let name = name.scalar?.string else { throw problem(name, "a key must be plain text") }
                let key = prefix + name
                if let info = table[key] {
                    values[key] = Entry(value: try rawValue(of: child, info), line: YAMLDocument.line(of: child))
                } else if table.keys.contains(where: { $0.hasPrefix(key + ".") }) {
                    try visit(child, prefix: key + ".")
                } else {
                    let hint = Suggestion.nearest(to: key, among: table.keys).map { "did you mean \($0)? " } ?? ""
                    throw problem(child, "unknown key \(key); \(hint)allowed here: \(keys(under: prefix))")
                }
            }
        }

        private func rawValue(of node: Node, _ info: SettingInfo) throws(CommandError) -> RawValue {
            let raw: RawValue
            switch node {
            case .scalar(let scalar): raw = .scalar(scalar.string)
            case .sequence(let sequence) where info.isList:
                var items: [String] = []
                for item in sequence {
                    guard let text = item.scalar?.string else { throw problem(item, "\(info.key): each item must be \(info.allowed)") }
                    items.append(text)
                }
                raw = .list(items)
            default: throw problem(node, "\(info.key) must be \(info.allowed)")
            }
            guard info.isValid(raw) else {
                throw SettingsReader.refusal(of: raw, info, source: "\(path):\(YAMLDocument.line(of: node)): \(info.key)")
            }
            return raw
        }

        private func keys(under prefix: String) -> String {
            let names = table.keys.filter { $0.hasPrefix(prefix) }.map { $0.dropFirst(prefix.count).prefix { $0 != "." } }
            return Set(names).sorted().joined(separator: ", ")
        }

        private func problem(_ node: Node, _ text: String) -> CommandError {
            .usage("\(path):\(YAMLDocument.line(of: node)): \(text)")
        }
    }
}

/// What settings and pipelines have in common: one YAML document, its errors in one line with the place.
enum YAMLDocument {
    /// Nil for an empty document.
    static func root(of yaml: String, path: String) throws(CommandError) -> Node? {
        do {
            return try Yams.compose(yaml: yaml)
        } catch let error as YamlError {
            throw .usage("\(path): not valid YAML: \(oneLine("\(error)"))")
        } catch {
            throw .usage("\(path): not valid YAML")
        }
    }

    static func line(of node: Node) -> Int { node.mark?.line ?? 1 }

    private static func oneLine(_ text: String) -> String {
        text.split(whereSeparator: \.isNewline).map { $0.drop { $0 == " " } }.joined(separator: " ")
    }
}
