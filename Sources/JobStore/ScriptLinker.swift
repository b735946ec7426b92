/// Puts in front of a script what it uses of the shared files, and nothing else.
///
/// Redis runs a script's whole text at each call: every function and table of a shared file is made anew and thrown away. Measured,
/// all of them cost 5 µs a call, as much as ten commands.
enum ScriptLinker {
    /// - Parameter shared: definitions at the left margin, each `local function NAME` or `local NAME = …` with everything indented
    ///   below it; they may use those before them. A function whose first line ends in `-- rarely` is made, with what only it
    ///   needs, when it is called: most calls then do without its parts.
    ///
    /// A constant (`local UPPER_CASE = …` on one line, no table) is written where it is used: each local that a function captures
    /// makes the function dearer to make.
    static func link(_ shared: String, into script: String) -> String {
        var constants: [Substring: String] = [:]
        var all: [Definition] = []
        for definition in definitions(of: shared) {
            if let value = definition.constant, let name = definition.names.first {
                constants[name] = "(" + substituting(constants, in: value) + ")"
            } else {
                all.append(Definition(names: definition.names, text: substituting(constants, in: definition.text[...])))
            }
        }
        let script = substituting(constants, in: script[...])
        var used = names(in: script)
        var kept: Set<Int> = []
        for index in all.indices.reversed() where !used.isDisjoint(with: all[index].names) {
            kept.insert(index)
            if !all[index].isRare { used.formUnion(all[index].words) }
        }
        let rare = kept.filter { all[$0].isRare }.sorted()
        let plain = kept.subtracting(rare)
        guard !rare.isEmpty else { return plain.sorted().map { all[$0].text }.joined() + script }
        let redirected = Set(rare.flatMap { all[$0].names })
        return "local RARELY\n" + plain.sorted().map { redirecting(redirected, in: all[$0].text[...]) }.joined()
            + "RARELY = function(name, ...)\n" + rare.map { branch($0, of: all, without: plain) }.joined() + "end\n"
            + redirecting(redirected, in: script[...])
    }

    /// A part of the one function that makes any of the rare ones, and what it needs, when it is called. One for all, because each
    /// function costs its making at each call of the script, called or not.
    private static func branch(_ index: Int, of all: [Definition], without plain: Set<Int>) -> String {
        var used = all[index].words
        var inner = [all[index].text]
        for index in all.indices.prefix(index).reversed() where !plain.contains(index) && !used.isDisjoint(with: all[index].names) {
            used.formUnion(all[index].words)
            inner.append(all[index].text)
        }
        let name = all[index].names.first ?? ""
        return "if name == '\(name)' then\n" + inner.reversed().joined() + "return \(name)(...)\nend\n"
    }

    /// The text with calls of the named functions, each with at least one argument, in the form `RARELY('name', …)`.
    private static func redirecting(_ names: Set<Substring>, in text: Substring) -> String {
        replacingWords(in: text) { word, rest in
            guard rest.utf8.first == UInt8(ascii: "("), names.contains(word) else { return nil }
            return ("RARELY('\(word)', ", 1)
        }
    }

    private struct Definition {
        let names: Set<Substring>
        let text: String
        /// Every word of it that may be a name.
        let words: Set<Substring>

        init(names: Set<Substring>, text: String) {
            self.names = names
            self.text = text
            words = ScriptLinker.names(in: text)
        }

        var isRare: Bool { text.prefix { $0 != "\n" }.hasSuffix("-- rarely") }

        /// Its value, when it is a constant.
        var constant: Substring? {
            let line = text.prefix { $0 != "\n" }
            guard names.count == 1, let name = names.first, name.allSatisfy({ $0.isUppercase || $0.isNumber || $0 == "_" }),
                let equals = line.firstIndex(of: "="), !line.contains("{"), text.dropFirst(line.count).allSatisfy(\.isWhitespace)
            else { return nil }
            return line[line.index(after: equals)...].drop { $0 == " " }
        }
    }

    /// The text with the constants' values in the place of their names.
    private static func substituting(_ constants: [Substring: String], in text: Substring) -> String {
        guard !constants.isEmpty else { return String(text) }
        return replacingWords(in: text) { word, _ in constants[word].map { ($0, 0) } }
    }

    /// - Parameter replacement: of a word, given what follows it: its text, and how many bytes after the word go with it.
    private static func replacingWords(
        in text: Substring,
        _ replacement: (_ word: Substring, _ rest: Substring) -> (text: String, dropped: Int)?
    ) -> String {
        var out = ""
        var rest = text
        while let start = rest.utf8.firstIndex(where: isWord) {
            let end = rest.utf8[start...].firstIndex { !isWord($0) } ?? rest.endIndex
            out += rest[..<start]
            let word = rest[start..<end]
            rest = rest[end...]
            if let (value, dropped) = replacement(word, rest) {
                out += value
                rest = rest[rest.utf8.index(rest.startIndex, offsetBy: dropped)...]
            } else {
                out += word
            }
        }
        return out + rest
    }

    private static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "_"):
            true
        default: false
        }
    }

    private static func definitions(of shared: String) -> [Definition] {
        var found: [Definition] = []
        var start: String.Index?
        var index = shared.startIndex
        func close() {
            guard let start, start < index else { return }
            let text = shared[start..<index]
            found.append(Definition(names: defined(by: text), text: String(text)))
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
    private static func defined(by text: Substring) -> Set<Substring> {
        let line = text.prefix { $0 != "\n" }.dropFirst("local ".count)
        if line.hasPrefix("function ") { return [line.dropFirst("function ".count).prefix { $0 != "(" }] }
        return Set(line.prefix { $0 != "=" }.split { $0 == "," || $0 == " " })
    }

    /// Every word that may be a name; too many do no harm.
    private static func names(in text: String) -> Set<Substring> {
        var names: Set<Substring> = []
        for line in text.split(separator: "\n") where !line.drop(while: { $0 == " " }).hasPrefix("--") {
            var rest = line
            while let start = rest.utf8.firstIndex(where: isWord) {
                let end = rest.utf8[start...].firstIndex { !isWord($0) } ?? rest.endIndex
                names.insert(rest[start..<end])
                rest = rest[end...]
            }
        }
        return names
    }
}
