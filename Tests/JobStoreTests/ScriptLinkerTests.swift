import RedisLink
import Testing

@testable import JobStore

@Suite struct ScriptLinkerTests {
    private static let shared = """
        -- Words.
        local RANK = {
          one = 1,
        }

        local function ranked(x)
          if x then return RANK[x] end
        end

        -- Not used: names only what is not there.
        local function idle()
          return ranked('x')
        end
        local a, b = 1, 2
        local function last(x) b = x end

        """

    @Test func onlyWhatIsUsedIsLinked() {
        #expect(ScriptLinker.link(Self.shared, into: "return 1") == "return 1")
        #expect(ScriptLinker.link(Self.shared, into: "return RANK.one") == "local RANK = {\n  one = 1,\n}\n\nreturn RANK.one")
        let last = ScriptLinker.link(Self.shared, into: "-- idle\nlast(3)")
        let expected = """
            local a, b = 1, 2
            local function SHARED(BRANCH, P1)
            -- last
            local x = P1
            b = x end
            -- idle
            SHARED(0, 3)
            """
        #expect(last == expected)
    }

    @Test func sharedFunctionsAreTheBranchesOfOne() {
        let shared = Self.shared + "local function both(x, y)\n  last(x)\n  last( y )\nend\nlocal function none()\n  both(1, 2)\nend\n"
        let linked = ScriptLinker.link(shared, into: "none()\nreturn ranked('one')")
        let expected = """
            local RANK = {
              one = 1,
            }

            local a, b = 1, 2
            local function SHARED(BRANCH, P1, P2)
            if BRANCH < 2 then
            if BRANCH < 1 then
            -- ranked
            local x = P1
            if x then return RANK[x] end
            else
            -- last
            local x = P1
            b = x end
            else
            if BRANCH < 3 then
            -- both
            local x, y = P1, P2
            SHARED(1, x)
              SHARED(1,  y )
            else
            -- none
            SHARED(2, 1, 2)
            end
            end
            end
            SHARED(3)
            return SHARED(0, 'one')
            """
        #expect(linked == expected)
    }

    @Test func aConstantIsWrittenWhereItIsUsed() {
        let shared = "-- Days.\nlocal DAYS = 7\nlocal KEEP_MS = DAYS * 24\nlocal NAME = 'DAYS'\n"
        #expect(ScriptLinker.link(shared, into: "return KEEP_MS + DAYS") == "return ((7) * 24) + (7)")
        #expect(ScriptLinker.link(shared, into: "return NAME .. 'NAME' -- NAME") == "return ('DAYS') .. 'NAME' -- NAME")
    }

    @Test(arguments: [
        ("f(x)", "(x .. ':x')"),
        ("f( a.b )", "(a.b .. ':x')"),
        ("f(g(1, ')'))", "((g(1, ')')) .. ':x')"),
        ("f(f(1 + 2))", "((((1 + 2) .. ':x')) .. ':x')"),
        // What stands twice in it is worked out once: it stays a call unless that is a mere name.
        ("twice(n)", "(n + n)"),
        ("twice(n.m)", "(n.m + n.m)"),
        ("t.f(x) .. f(x)", "t.f(x) .. (x .. ':x')"),
        ("'f(x)' .. f('\\'')", "'f(x)' .. (('\\'') .. ':x')"),
    ])
    func aFunctionOfOneExpressionIsWrittenWhereItIsCalled(call: String, written: String) {
        let shared = "local function f(x) return x .. ':x' end\nlocal function twice(x)\n  return x + x\nend\n"
        #expect(ScriptLinker.link(shared, into: "return " + call).hasSuffix("return " + written))
    }

    @Test(arguments: ["twice(g(1))", "two(1)", "many(1)", "once(1 -- one, it's said\n)"])
    func whatCannotBeWrittenOutRemainsACall(call: String) {
        let shared =
            "local function twice(x) return x + x end\nlocal function two(x) return x, 2 end\nlocal function once(x) return x end\n"
            + "local function many(x)\n  local y = x\n  return y\nend\n"
        let linked = ScriptLinker.link(shared, into: "return " + call)
        #expect(linked.hasSuffix("end\nreturn SHARED(0, " + call.split(separator: "(", maxSplits: 1)[1]))
    }

    @Test func aScriptHasWhatItNamesAndLessThanAll() {
        let claim = Scripts.claim.source
        #expect(claim.contains("-- end_job\n"))
        #expect(!Scripts.heartbeat.source.contains("-- end_job\n"))
        #expect(Scripts.heartbeat.source.utf8.count < claim.utf8.count / 4)
    }

    /// A shared function that is handed on as a value, called with a space or otherwise missed would be nil, when its line runs.
    @Test(arguments: Scripts.all.map(\.name))
    func everyNameOfAScriptIsKnown(name: String) throws {
        let globals: Set<Substring> = [
            "ARGV", "KEYS", "cjson", "ipairs", "math", "pairs", "redis", "string", "table", "tonumber", "unpack",
        ]
        let words: Set<Substring> = [
            "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local", "nil", "not", "or", "repeat",
            "return", "then", "true", "until", "while",
        ]
        let source = try #require(Scripts.all.first { $0.name == name }).source
        let declared = Self.declared(in: source)
        let unknown = LuaText.names(in: source[...]).subtracting(globals).subtracting(words).subtracting(declared)
            .filter { $0.first?.isNumber == false && $0 != "_" }
        #expect(unknown.isEmpty)
    }

    /// Locals, parameters and keys of tables.
    private static func declared(in source: String) -> Set<Substring> {
        var declared: Set<Substring> = []
        for line in source.split(separator: "\n") {
            for match in line.matches(of: /(?:local|for) (?:function )?([A-Za-z0-9_, ]+)/) {
                declared.formUnion(match.output.1.split { $0 == "," || $0 == " " })
            }
            for match in line.matches(of: /function[ A-Za-z0-9_]*\(([A-Za-z0-9_, ]*)\)/) {
                declared.formUnion(match.output.1.split { $0 == "," || $0 == " " })
            }
            for match in line.matches(of: #/(?:^ *|[{,] *)([a-z_]+) = /#) { declared.insert(match.output.1) }
        }
        return declared
    }
}
