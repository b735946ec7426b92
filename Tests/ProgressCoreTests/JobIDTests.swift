import ProgressCore
import TestSupport
import Testing

@Suite struct JobIDTests {
    @Test(arguments: ["a", "A.b_c:d-9", "parent~3", "p~999999999", String(repeating: "x", count: 128)])
    func acceptsWhatTheContractAllows(text: String) {
        #expect(JobID(text)?.text == text)
    }

    @Test(arguments: [
        "", "a b", "a/b", "ä", "a\n", "a{b}", "~3", "a~", "a~x", "a~03", "a~0", "a~1~2", "a~1234567890", String(repeating: "x", count: 129),
    ])
    func refusesTheRest(text: String) {
        #expect(JobID(text) == nil)
    }

    @Test func aChildLivesWithItsParent() throws {
        let child = try #require(JobID("photo:7~12"))
        #expect(child.root == "photo:7")
        #expect(child.childNumber == 12)
        #expect(JobID("photo")?.childNumber == nil)
        #expect(JobID("photo")?.root == "photo")
    }

    @Test func madeIdsAreVersion7AndSortByTime() {
        var random = SeededGenerator(7)
        var previous = ""
        for step in 0..<2000 {
            let id = JobID.make(unixMs: 1_767_225_600_000 + step, random: &random).text
            #expect(JobID(id) != nil)
            let parts = id.split(separator: "-").map(\.count)
            #expect(parts == [8, 4, 4, 4, 12])
            let letters = Array(id)
            #expect(letters[14] == "7")
            #expect("89ab".contains(letters[19]))
            #expect(id == id.lowercased())
            #expect(id > previous)
            previous = id
        }
    }

    @Test func theExampleOfTheStandardComesOut() {
        // RFC 9562 appendix A.6: unix_ts_ms 0x017F22E279B0, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F.
        struct Fixed: RandomNumberGenerator {
            var values: [UInt64] = [0xcc3, 0x18c4_dc0c_0c07_398f << 2]
            mutating func next() -> UInt64 { values.removeFirst() }
        }
        var random = Fixed()
        #expect(JobID.make(unixMs: 0x017f_22e2_79b0, random: &random).text == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
    }
}
