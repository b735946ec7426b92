/// Puts in front of a script what it uses of the shared files, and nothing else.
///
/// Redis runs a script's whole text at each call: every function and table of a shared file would be made anew and thrown away. Making
/// a function costs as much as calling it three times, and what is thrown away is swept up in one go at every fiftieth call, which
/// somebody waits for. So what is only a name for an expression is written where it is used, and all other shared functions are the
/// branches of a single one, `SHARED(number, …)`, which finds the branch in a few comparisons.
enum ScriptLinker {
    /// - Parameter shared: definitions at the left margin, each `local function NAME(…)` or `local NAME = …` with everything indented
    ///   below it; they may use those before them. A function is only ever called by its name, never handed on as a value.
    ///
    /// Written where they are used: constants (`local UPPER_CASE = …` on one line, no table) and functions that are one `return` of one
    /// value. A shared table is made at each call of a script that uses it or a function that does.
    static func link(_ shared: String, into script: String) -> String {
        var inlined: [Substring: LuaInline] = [:]
        var all: [LuaDefinition] = []
        for written in LuaDefinition.all(in: shared) {
            let definition = LuaDefinition(names: written.names, text: inlining(inlined, in: written.text[...]))
            if let inline = LuaInline(definition), let name = definition.names.first { inlined[name] = inline }
            // A call that cannot be written out remains a call.
            if definition.constant == nil { all.append(definition) }
        }
        let script = inlining(inlined, in: script[...])
        var used = LuaText.names(in: script[...])
        var kept: [LuaDefinition] = []
        for definition in all.reversed() where !used.isDisjoint(with: definition.names) {
            kept.insert(definition, at: 0)
            used.formUnion(definition.words)
        }
        return joining(kept, script)
    }

    private static func joining(_ definitions: [LuaDefinition], _ script: String) -> String {
        let functions = definitions.filter { $0.function != nil }
        var numbers: [Substring: Int] = [:]
        for (number, function) in functions.enumerated() {
            for name in function.names { numbers[name] = number }
        }
        let common = definitions.filter { $0.function == nil }.map(\.text).joined()
        guard !functions.isEmpty else { return common + script }
        let parameters = (0..<(functions.compactMap(\.function?.parameters.count).max() ?? 0)).map { "P\($0 + 1)" }
        let branches = functions.map { definition in
            let names = definition.function?.parameters ?? []
            let given = names.isEmpty ? "" : "local " + list(names) + " = " + list(parameters.prefix(names.count)) + "\n"
            return "-- \(definition.names.joined())\n" + given + redirecting(numbers, in: definition.function?.body ?? "")
        }
        return common + "local function SHARED(" + list(["BRANCH"] + parameters) + ")\n" + choice(branches[...]) + "end\n"
            + redirecting(numbers, in: script[...])
    }

    private static func list(_ names: some Sequence<some StringProtocol>) -> String { names.joined(separator: ", ") }

    /// The branches in a tree of comparisons.
    private static func choice(_ branches: ArraySlice<String>) -> String {
        guard branches.count > 1 else { return branches.first ?? "" }
        let middle = branches.startIndex + branches.count / 2
        return "if BRANCH < \(middle) then\n" + choice(branches[..<middle]) + "else\n" + choice(branches[middle...]) + "end\n"
    }

    /// The text with calls of the named functions in the form `SHARED(number, …)`.
    private static func redirecting(_ numbers: [Substring: Int], in text: Substring) -> String {
        LuaText.replacingWords(in: text) { word, rest in
            guard rest.utf8.first == UInt8(ascii: "("), let number = numbers[word] else { return nil }
            return ("SHARED(\(number)" + (rest.dropFirst().utf8.first == UInt8(ascii: ")") ? "" : ", "), 1)
        }
    }

    /// The text with what is to be written out in the place of its name.
    private static func inlining(_ inlined: [Substring: LuaInline], in text: Substring) -> String {
        guard !inlined.isEmpty else { return String(text) }
        return LuaText.replacingWords(in: text) { word, rest in
            guard let inline = inlined[word] else { return nil }
            guard let parameters = inline.parameters else { return (inline.expression, 0) }
            guard let call = LuaText.arguments(at: rest) else { return nil }
            // They are parts of larger expressions, and may name what is written out too.
            let arguments = call.arguments.map { inlining(inlined, in: $0) }
            guard arguments.count == parameters.count, let text = inline.expression(of: arguments) else { return nil }
            return (text, call.length)
        }
    }
}
