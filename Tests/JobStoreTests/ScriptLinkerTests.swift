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

    @Test func everyScriptHasWhatItNamesAndLessThanAll() {
        let claim = Scripts.claim.source
        #expect(claim.contains("local function end_job("))
        #expect(!Scripts.heartbeat.source.contains("local function end_job("))
        #expect(Scripts.heartbeat.source.utf8.count < claim.utf8.count / 4)
    }
}
