import JobStore
import ProgressCore
import TestSupport
import Testing

@testable import WorkerRuntime

/// A real generator that falls silent in the middle of a stage.
@Suite(.timeLimit(.minutes(5))) struct StallTests {
    /// Twenty steps of a tenth of a second, of which it waits before the ninth until it is told to go on. A stall is five usual gaps
    /// and two seconds more (docs/estimator.md), so that here it shows after about three.
    private static let script = """
        say() { echo "{\\"stage\\":\\"shape_generation\\",\\"step\\":$1,\\"steps\\":20}" >&3; }
        for i in $(seq 1 8); do say $i; sleep 0.1; done
        until [ -e "$HEADWAY_OUTPUT_DIR/../../go" ]; do sleep 0.05; done
        for i in $(seq 9 20); do say $i; sleep 0.1; done
        """

    @Test func aSilentGeneratorIsShownAsStalledUntilItGoesOn() async throws {
        try await WorkerFixture.with(script: Self.script) { fixture in
            let job = try await fixture.submit("a")
            try await fixture.reaches(job, "the last step before the silence") { $0.fields["step"] == "8" }
            let before = try await fixture.snapshot(job)
            #expect(before.fields["stalled"] == nil)
            try await fixture.reaches(job, "a stall") { $0.fields["stalled"] == "1" }
            let stalled = try await fixture.snapshot(job)
            #expect(stalled.body.contains(#""stalled":true"#))
            // Nothing else has changed: neither where it stands nor whose it is.
            for name in ["phase", "stage", "step", "steps", "attempt", "worker", "fence"] {
                #expect(stalled.fields[name] == before.fields[name], "\(name)")
            }
            #expect(stalled.phase == .generating)
            let reasons = try await fixture.store.why(job)?.reasons.map(\.code) ?? []
            #expect(reasons.contains("stalled"), "\(reasons)")
            try touch(fixture.root + "/work/w1/go")
            try await fixture.reaches(job, "the end of the stall") { $0.fields["stalled"] == nil }
            let after = try await fixture.snapshot(job)
            #expect(Int(after.fields["step"] ?? "") ?? 0 > 8 || after.phase == .complete)
            let end = try await fixture.end(of: job)
            #expect(end.phase == .complete && end.fields["attempt"] == "1")
            #expect(!end.body.contains("stalled"))
        }
    }
}
