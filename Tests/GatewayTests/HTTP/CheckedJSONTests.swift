import TestSupport
import Testing

@testable import Gateway

/// The checker takes exactly RFC 8259; what it took is read back as it was written.
@Suite(.timeLimit(.minutes(5))) struct CheckedJSONTests {
    private func parse(_ text: String, depth: Int = 64) throws -> CheckedJSON { try CheckedJSON(Array(text.utf8), maximumDepth: depth) }

    @Test(arguments: [
        "{}", "[]", "0", "-0", "1.5e+10", "-1E-2", "true", "false", "null", "\"\"", " { } ", "\t\r\n[1 , 2]\n", "[[[]]]", "{\"\":{}}",
        "\"\\u0000\"", "\"\\ud83d\\ude00\"", "\"\u{1F600}\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "{\"a\":1,\"a\":2}",
        "[1,{\"b\":[true,null]},\"c\"]",
        "123456789012345678901234567890", "\"\u{10FFFF}\"", "\"\u{7f}\"",
    ]) func takes(_ text: String) throws {
        #expect(throws: Never.self) { try parse(text) }
    }

    @Test(arguments: [
        "", " ", "{", "[", "}", "]", "{]", "[}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "[1,]", "[,1]", "{,}", "{a:1}", "{'a':1}", "[1 2]",
        "01", "-", "+1", ".5", "1.", "1e", "1e+", "0x10", "NaN", "Infinity", "-Infinity", "tru", "truee", "nul", "True", "\"", "\"\\\"",
        "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\\ud800x\"", "\"a\nb\"", "\"\u{1}\"",
        "{} {}", "[] x", "1 2", "// c\n{}", "{\"a\":1 \"b\":2}", "\u{feff}{}", "{\"a\" 1}", "[1]]", "{\"a\":[}", "1-2", "\"a\"\"b\"", "--1",
    ]) func refuses(_ text: String) {
        #expect(throws: JSONProblem.self) { try parse(text) }
    }

    @Test(
        arguments: [
            [0x22, 0xff, 0x22], [0x22, 0xc0, 0x80, 0x22], [0x22, 0xe0, 0x80, 0x80, 0x22], [0x22, 0xed, 0xa0, 0x80, 0x22],
            [0x22, 0xf4, 0x90, 0x80, 0x80, 0x22], [0x22, 0xf8, 0x88, 0x80, 0x80, 0x80, 0x22], [0x22, 0xc3, 0x22], [0x22, 0xe2, 0x82],
            [0xc3, 0xa9],
        ] as [[UInt8]]
    ) func refusesWhatIsNotUTF8(_ bytes: [UInt8]) {
        #expect(throws: JSONProblem.self) { try CheckedJSON(bytes, maximumDepth: 8) }
    }

    @Test func namesThePlaceOfTheProblem() {
        #expect(throws: JSONProblem(offset: 7, message: "expected a member's name in double quotes")) { try parse("{\"a\":1,}") }
        #expect(throws: JSONProblem(offset: 5, message: "expected a value")) { try parse("{\"a\":x}") }
        #expect(throws: JSONProblem(offset: 1, message: "the text ends where a value is expected")) { try parse("[") }
    }

    @Test func depthIsBoundedWithoutRecursion() throws {
        let deep = { (count: Int) in String(repeating: "[", count: count) + String(repeating: "]", count: count) }
        #expect(throws: Never.self) { try parse(deep(64)) }
        #expect(throws: JSONProblem.self) { try parse(deep(65)) }
        // Half a megabyte of brackets: refused at the 65th, or read without touching the stack.
        #expect(throws: JSONProblem.self) { try parse(deep(262_144)) }
        #expect(throws: Never.self) { try parse(deep(100_000), depth: 100_000) }
    }

    @Test func readsMembersElementsAndScalarsInPlace() throws {
        let json = try parse(
            " {\"a\" : [1, -2.5 ,\"x\\n\\u00e9\\ud83d\\ude00\"], \"b\\\"\":{\"c\":null}, \"d\":true ,\"e\":9223372036854775808} "
        )
        var names: [String] = []
        json.root.forEachMember { name, value in
            names.append(name)
            switch name {
            case "a":
                var kinds: [JSONView.Kind] = []
                value.forEachElement { index, element in
                    kinds.append(element.kind)
                    if index == 0 { #expect(element.int == 1) }
                    if index == 1 { #expect(element.int == nil && element.double == -2.5 && element.raw == "-2.5") }
                    if index == 2 { #expect(element.string == "x\né\u{1F600}") }
                }
                #expect(kinds == [.number, .number, .string])
                #expect(value.raw == "[1, -2.5 ,\"x\\n\\u00e9\\ud83d\\ude00\"]")
            case "b\"": #expect(value.kind == .object && value.raw == "{\"c\":null}")
            case "d": #expect(value.bool == true)
            case "e": #expect(value.int == nil && value.double == 9_223_372_036_854_775_808)
            default: Issue.record("unexpected \(name)")
            }
        }
        #expect(names == ["a", "b\"", "d", "e"])
    }

    /// Random documents are read back value by value; their mutations never crash, and what is taken can be walked to its end.
    @Test func randomDocumentsAndTheirMutations() throws {
        var generator = SeededGenerator(seed: 0x4a50)
        var taken = 0
        for _ in 0..<4000 {
            let value = RandomJSON.make(depth: 5, using: &generator)
            let bytes = Array(value.text(using: &generator).utf8)
            let json = try CheckedJSON(bytes, maximumDepth: 8)
            #expect(value.matches(json.root))
            var mutated = bytes
            for _ in 0..<Int.random(in: 1...3, using: &generator) where !mutated.isEmpty {
                let index = Int.random(in: 0..<mutated.count, using: &generator)
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: mutated[index] = UInt8.random(in: 0...255, using: &generator)
                case 1: mutated.remove(at: index)
                default: mutated.insert(Array("{}[],:\"\\0e-u".utf8).randomElement(using: &generator) ?? 0, at: index)
                }
            }
            if let json = try? CheckedJSON(mutated, maximumDepth: 8) {
                taken += 1
                walk(json.root)
            }
        }
        #expect(taken > 100)
    }

    private func walk(_ view: JSONView) {
        #expect(view.text.bytes.indices.contains(view.range.lowerBound) && view.range.upperBound <= view.text.bytes.count)
        _ = view.string
        _ = view.double
        view.forEachMember { _, value in walk(value) }
        view.forEachElement { _, value in walk(value) }
    }
}

/// A value and its text with random white space.
private indirect enum RandomJSON {
    case null, bool(Bool), int(Int), string(String), array([RandomJSON]), object([(String, RandomJSON)])

    static func make(depth: Int, using generator: inout SeededGenerator) -> RandomJSON {
        switch Int.random(in: 0..<(depth > 0 ? 6 : 4), using: &generator) {
        case 0: .null
        case 1: .bool(.random(using: &generator))
        case 2: .int(.random(in: -1_000_000...1_000_000, using: &generator))
        case 3: .string(text(using: &generator))
        case 4: .array((0..<Int.random(in: 0...4, using: &generator)).map { _ in make(depth: depth - 1, using: &generator) })
        default:
            .object(
                (0..<Int.random(in: 0...4, using: &generator)).map { _ in
                    (text(using: &generator), make(depth: depth - 1, using: &generator))
                }
            )
        }
    }

    private static func text(using generator: inout SeededGenerator) -> String {
        var text = ""
        for _ in 0..<Int.random(in: 0...8, using: &generator) {
            let scalar = [0x0a, 0x22, 0x5c, 0x41, 0x7b, 0x5d, 0xe9, 0x20ac, 0x1F600, 0].randomElement(using: &generator) ?? 0x41
            if let scalar = Unicode.Scalar(UInt32(scalar)) { text.unicodeScalars.append(scalar) }
        }
        return text
    }

    func text(using generator: inout SeededGenerator) -> String {
        let space = ["", " ", "\n", "\t "].randomElement(using: &generator) ?? ""
        switch self {
        case .null: return space + "null" + space
        case .bool(let value): return space + "\(value)"
        case .int(let value): return "\(value)" + space
        case .string(let value): return Self.quoted(value, using: &generator)
        case .array(let values):
            var parts: [String] = []
            for value in values { parts.append(value.text(using: &generator)) }
            return space + "[" + space + parts.joined(separator: ",") + "]" + space
        case .object(let members):
            var parts: [String] = []
            for (name, value) in members {
                parts.append(space + Self.quoted(name, using: &generator) + space + ":" + value.text(using: &generator))
            }
            return "{" + parts.joined(separator: ",") + space + "}"
        }
    }

    private static func quoted(_ text: String, using generator: inout SeededGenerator) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            if scalar.value < 0x20 || scalar == "\"" || scalar == "\\" || generator.chance(20) {
                for unit in String(scalar).utf16 {
                    let hex = String(unit, radix: 16)
                    out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
                }
            } else {
                out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }

    func matches(_ view: JSONView) -> Bool {
        switch self {
        case .null: return view.kind == .null
        case .bool(let value): return view.bool == value
        case .int(let value): return view.int == value
        case .string(let value): return view.string == value
        case .array(let values):
            var all = view.kind == .array
            var count = 0
            view.forEachElement { index, element in
                all = all && index < values.count && values[index].matches(element)
                count += 1
            }
            return all && count == values.count
        case .object(let members):
            var all = view.kind == .object
            var count = 0
            view.forEachMember { name, value in
                all = all && count < members.count && members[count].0 == name && members[count].1.matches(value)
                count += 1
            }
            return all && count == members.count
        }
    }
}
