/// A function, a table or a constant of a shared file, with everything indented below it.
struct LuaDefinition {
    let names: Set<Substring>
    let text: String
    /// Every word of it that may be a name.
    let words: Set<Substring>

    init(names: Set<Substring>, text: String) {
        self.names = names
        self.text = text
        words = LuaText.names(in: text[...])
    }

    /// Its value, when it is a constant: one upper-case name for what stands on one line and is no table.
    var constant: Substring? {
        let line = text.prefix { $0 != "\n" }
        guard names.count == 1, let name = names.first, name.allSatisfy({ $0.isUppercase || $0.isNumber || $0 == "_" }),
            let equals = line.firstIndex(of: "="), !line.contains("{"), text.dropFirst(line.count).allSatisfy(\.isWhitespace)
        else { return nil }
        return line[line.index(after: equals)...].drop { $0 == " " }
    }

    /// Its parameters and its body, when it is a function.
    var function: (parameters: [Substring], body: Substring)? {
        guard text.hasPrefix("local function "), let open = text.firstIndex(of: "("), let close = text[open...].firstIndex(of: ")"),
            let last = text.lastIndex(where: { !$0.isWhitespace })
        else { return nil }
        let parameters = text[text.index(after: open)..<close].split { $0 == "," || $0 == " " }
        return (parameters, text[text.index(after: close)...last].dropLast("end".count).drop(while: \.isWhitespace))
    }

    static func all(in shared: String) -> [LuaDefinition] {
        var found: [LuaDefinition] = []
        var start: String.Index?
        var index = shared.startIndex
        func close() {
            guard let start, start < index else { return }
            let text = shared[start..<index]
            found.append(LuaDefinition(names: declared(by: text), text: String(text)))
        }
        while index < shared.endIndex {
            let end = shared[index...].firstIndex(of: "\n").map(shared.index(after:)) ?? shared.endIndex
            let line = shared[index..<end]
            if line.hasPrefix("local ") {
                close()
                start = index
            } else if line.hasPrefix("--") {
                close()
                start = nil
            }
            index = end
        }
        close()
        return found
    }

    /// What the first line of a definition declares.
    private static func declared(by text: Substring) -> Set<Substring> {
        let line = text.prefix { $0 != "\n" }.dropFirst("local ".count)
        if line.hasPrefix("function ") { return [line.dropFirst("function ".count).prefix { $0 != "(" }] }
        return Set(line.prefix { $0 != "=" }.split { $0 == "," || $0 == " " })
    }
}

/// What can be written where it is used: a constant, or a function that is one `return` of one value. (A table in that value must not
/// have keys with the names of parameters.)
struct LuaInline {
    /// Nil for a constant.
    let parameters: [Substring]?
    /// In parentheses.
    let expression: String

    private static let statements: Set<Substring> = ["local", "if", "for", "while", "repeat", "function", "return"]

    init?(_ definition: LuaDefinition) {
        if let constant = definition.constant {
            parameters = nil
            expression = "(" + constant + ")"
        } else {
            guard let function = definition.function, function.body.hasPrefix("return ") else { return nil }
            let value = "(\(LuaText.trimmed(function.body.dropFirst("return ".count))))"[...]
            guard LuaText.names(in: value).isDisjoint(with: Self.statements), LuaText.arguments(at: value)?.arguments.count == 1
            else {
                return nil
            }
            parameters = function.parameters
            expression = String(value)
        }
    }

    /// The expression with the arguments in the place of the parameters; nil where an argument would be worked out more than once.
    func expression(of arguments: [String]) -> String? {
        let values = Dictionary(uniqueKeysWithValues: zip(parameters ?? [], arguments))
        var uses: [Substring: Int] = [:]
        let text = LuaText.replacingWords(in: expression[...]) { word, _ in
            guard let value = values[word] else { return nil }
            uses[word, default: 0] += 1
            return (Self.isName(value) ? value : "(" + value + ")", 0)
        }
        return values.allSatisfy { uses[$0.key, default: 0] == 1 || Self.isName($0.value) } ? text : nil
    }

    /// A name or a field of one.
    private static func isName(_ text: String) -> Bool {
        text.utf8.allSatisfy { LuaText.isWord($0) || $0 == UInt8(ascii: ".") }
    }
}
