/// Puts in front of a script what it uses of the shared files, and nothing else.
///
/// Redis runs a script's whole text at each call: every function and table of a shared file is made anew and thrown away. Measured,
/// all of them cost 5 µs a call, as much as ten commands.
enum ScriptLinker {
    /// - Parameter shared: definitions at the left margin, each `local function NAME` or `local NAME = …` with everything indented
    ///   below it; they may use those before them. A function whose first line ends in `-- rarely` is made, with what only it
    ///   needs, when it is called: most calls then do without its parts.
    static func link(_ shared: String, into script: String) -> String {
        let all = definitions(of: shared)
        var used = names(in: script)
        var kept: Set<Int> = []
        for index in all.indices.reversed() where !used.isDisjoint(with: all[index].names) {
            kept.insert(index)
            if !all[index].isRare { used.formUnion(names(in: all[index].text)) }
        }
        return kept.sorted().map { all[$0].isRare ? wrapped($0, of: all, without: kept) : String(all[$0].text) }.joined() + script
    }

    /// A function that makes itself and what it needs at each call.
    private static func wrapped(_ index: Int, of all: [Definition], without kept: Set<Int>) -> String {
        var used = names(in: all[index].text)
        var inner: [Substring] = [all[index].text]
        for index in all.indices.prefix(index).reversed() where !kept.contains(index) && !used.isDisjoint(with: all[index].names) {
            used.formUnion(names(in: all[index].text))
            inner.append(all[index].text)
        }
        let name = all[index].names.first ?? ""
        return "local function \(name)(...)\n" + inner.reversed().joined() + "return \(name)(...)\nend\n"
    }

    private struct Definition {
        var names: Set<Substring>
        var text: Substring

        var isRare: Bool { text.prefix { $0 != "\n" }.hasSuffix("-- rarely") }
    }

    private static func definitions(of shared: String) -> [Definition] {
        var found: [Definition] = []
        var start: String.Index?
        var index = shared.startIndex
        func close() {
            guard let start, start < index else { return }
            let text = shared[start..<index]
            found.append(Definition(names: defined(by: text), text: text))
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
    private static func names(in text: some StringProtocol) -> Set<Substring> {
        var names: Set<Substring> = []
        for line in text.split(separator: "\n") where !line.drop(while: { $0 == " " }).hasPrefix("--") {
            for word in line.split(whereSeparator: { !($0.isLetter || $0.isNumber || $0 == "_") }) { names.insert(Substring(word)) }
        }
        return names
    }
}
