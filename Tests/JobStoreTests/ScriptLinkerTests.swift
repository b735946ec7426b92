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
          return RANK[x]
        end

        -- Not used: names only what is not there.
        local function idle()
          return ranked('x')
        end
        local a, b = 1, 2
        local function last() return b end

        """

    @Test func onlyWhatIsUsedIsLinkedAndInOrder() {
        #expect(ScriptLinker.link(Self.shared, into: "return 1") == "return 1")
        let ranked = ScriptLinker.link(Self.shared, into: "return ranked(KEYS[1])")
        #expect(ranked.hasPrefix("local RANK = {\n  one = 1,\n}\n\nlocal function ranked(x)\n"))
        #expect(!ranked.contains("idle") && !ranked.contains("last"))
        let last = ScriptLinker.link(Self.shared, into: "-- idle\nreturn last()")
        #expect(last == "local a, b = 1, 2\nlocal function last() return b end\n-- idle\nreturn last()")
    }

    @Test func aRareFunctionIsMadeWhenItIsCalledWithWhatOnlyItNeeds() {
        let shared =
            "local function both() return 1 end\nlocal function own() return both() end\n"
            + "local function rare(a) -- rarely\n  return own() + both() + a\nend\n"
        let linked = ScriptLinker.link(shared, into: "return both() + rare(2)")
        let expected = """
            local RARELY
            local function both() return 1 end
            RARELY = function(name, ...)
            if name == 'rare' then
            local function own() return both() end
            local function rare(a) -- rarely
              return own() + both() + a
            end
            return rare(...)
            end
            end
            return both() + RARELY('rare', 2)
            """
        #expect(linked == expected)
    }

    @Test func aSharedFunctionCallsARareOneAndRareOnesCallEachOther() {
        let shared =
            "local function first(a) -- rarely\n  return a\nend\nlocal function second(a) -- rarely\n  return first(a)\nend\n"
            + "local function plain(a) return first(a) end\n"
        let linked = ScriptLinker.link(shared, into: "return plain(1) + second(2)")
        let expected = """
            local RARELY
            local function plain(a) return RARELY('first', a) end
            RARELY = function(name, ...)
            if name == 'first' then
            local function first(a) -- rarely
              return a
            end
            return first(...)
            end
            if name == 'second' then
            local function first(a) -- rarely
              return a
            end
            local function second(a) -- rarely
              return first(a)
            end
            return second(...)
            end
            end
            return plain(1) + RARELY('second', 2)
            """
        #expect(linked == expected)
    }

    @Test func aConstantIsWrittenWhereItIsUsed() {
        let shared =
            "-- Days.\nlocal DAYS = 7\nlocal KEEP_MS = DAYS * 24\nlocal RANK = { one = 1 }\nlocal function f(x) return x * KEEP_MS end\n"
        #expect(ScriptLinker.link(shared, into: "return f(DAYS)") == "local function f(x) return x * ((7) * 24) end\nreturn f((7))")
        #expect(ScriptLinker.link(shared, into: "return RANK.one") == "local RANK = { one = 1 }\nreturn RANK.one")
    }

    @Test func everyScriptHasWhatItNamesAndLessThanAll() {
        let claim = Scripts.claim.source
        #expect(claim.contains("local function end_job("))
        #expect(!Scripts.heartbeat.source.contains("local function end_job("))
        #expect(Scripts.heartbeat.source.utf8.count < claim.utf8.count / 4)
    }
}
