import TestSupport
import Testing

@testable import headway

struct DurationTextTests {
    @Test(arguments: [
        ("0ms", 0), ("500ms", 500), ("1s", 1000), ("1.5s", 1500), ("90s", 90_000), ("5m", 300_000), ("1h", 3_600_000), ("2d", 172_800_000),
    ])
    func durationsAreRead(_ text: String, _ milliseconds: Int) {
        #expect(DurationText.parse(text) == .milliseconds(milliseconds))
    }

    @Test(arguments: ["", "5", "s", "ms", "-1s", "1 s", "1e3s", "abc", "1.2.3s", "99999999999999999999s", "infs", "nans", "٣s"])
    func whatIsNoDurationIsRefused(_ text: String) {
        #expect(DurationText.parse(text) == nil)
    }

    @Test func exactTextIsReadBack() {
        var generator = SeededGenerator(seed: 1)
        for _ in 0..<5000 {
            let duration = Duration.milliseconds(Int.random(in: 0...1_000_000_000, using: &generator))
            #expect(DurationText.parse(DurationText.exact(duration)) == duration)
        }
    }

    @Test(arguments: [
        (0, "0 s"), (499, "0 s"), (500, "1 s"), (59_499, "59 s"), (59_500, "1 min"), (61_000, "1 min 1 s"), (3_599_499, "59 min 59 s"),
        (3_599_500, "1 h"), (5_400_000, "1 h 30 min"), (86_399_000, "1 d"), (90_000_000, "1 d 1 h"), (-5, "0 s"),
    ])
    func readableTextHasTwoUnitsAtMost(_ milliseconds: Int, _ text: String) {
        #expect(DurationText.readable(milliseconds: milliseconds) == text)
    }

    @Test(arguments: [(0, "0.0 s"), (3249, "3.2 s"), (9949, "9.9 s"), (9950, "10 s"), (12_345, "12 s")])
    func shortDurationsHaveTenths(_ milliseconds: Int, _ text: String) {
        #expect(DurationText.precise(milliseconds: milliseconds) == text)
    }
}
