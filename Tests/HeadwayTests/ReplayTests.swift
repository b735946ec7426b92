import FoundationEssentials
import ProgressCore
import Testing

@testable import headway

/// The protocol of `headway replay`, and what the estimator is worth on a few recorded jobs: wide bounds that a broken part of
/// it would leave.
@Suite(.timeLimit(.minutes(3))) struct ReplayTests {
    private static func lines(_ name: String) throws -> [String] {
        let folder = #filePath.split(separator: "/").dropLast(2).joined(separator: "/")
        return try TextFile.read("/\(folder)/Fixtures/traces/\(name).jsonl", limit: 1 << 20).split(separator: "\n").map(String.init)
    }

    private struct Answer: Decodable {
        var p: Double
        var eta: Double
        var lo: Double
        var hi: Double
    }

    private struct Score {
        var error = 0.0
        var linearity = 0.0
        var covered = 0.0
        var decreases = 0
    }

    /// Plays the jobs in order, one after the other, and scores all but the first `unscored`.
    private static func score(_ name: String, unscored: Int) throws -> Score {
        let decoder = JSONDecoder()
        var session = ReplaySession()
        var total = Score()
        var scored = 0.0
        for (number, line) in try lines(name).enumerated() {
            let trace = try decoder.decode(TraceJob.self, from: Data(line.utf8))
            _ = try session.take(operation("start", number, line))
            var events = trace.events[...]
            var worst = 0.0
            var last = 0.0
            var sum = (error: 0.0, covered: 0.0)
            for step in 0..<100 {
                let t = (Double(step) + 0.5) / 100 * trace.duration
                while let event = events.first, event.t <= t {
                    events.removeFirst()
                    let kind = event.update.step == nil ? "stage_start" : "tick"
                    let stage = event.update.stage ?? ""
                    let value = event.update.step ?? 0
                    _ = try session.take(
                        "{\"op\":\"\(kind)\",\"job\":\(number),\"stage\":\"\(stage)\",\"value\":\(value),\"t\":\(event.t)}"
                    )
                }
                let reply = try session.take("{\"op\":\"query\",\"job\":\(number),\"t\":\(t)}") ?? ""
                let answer = try decoder.decode(Answer.self, from: Data(reply.utf8))
                let rest = trace.duration - t
                sum.error += abs(answer.eta - rest) / trace.duration / 100
                sum.covered += answer.lo <= rest && rest <= answer.hi ? 0.01 : 0
                worst = max(worst, abs(answer.p - t / trace.duration))
                if answer.p < last { total.decreases += 1 }
                last = answer.p
            }
            _ = try session.take(operation("complete", nil, line))
            guard number >= unscored else { continue }
            scored += 1
            total.error += sum.error
            total.covered += sum.covered
            total.linearity += worst
        }
        return Score(
            error: total.error / scored,
            linearity: total.linearity / scored,
            covered: total.covered / scored,
            decreases: total.decreases
        )
    }

    private static func operation(_ name: String, _ job: Int?, _ line: String) -> String {
        "{\"op\":\"\(name)\"," + (job.map { "\"job\":\($0)," } ?? "") + line.dropFirst()
    }

    @Test func anImagePipelineIsForecastWell() throws {
        let score = try Self.score("comfy", unscored: 28)
        #expect(score.error < 0.09 && score.linearity < 0.08, "\(score)")
        #expect(score.covered > 0.6 && score.covered < 0.97, "\(score)")
        #expect(score.decreases == 0)
    }

    @Test func recordedJobsUnderContentionAreForecastUsably() throws {
        let score = try Self.score("real_torch", unscored: 13)
        #expect(score.error < 0.2 && score.linearity < 0.2, "\(score)")
        #expect(score.decreases == 0)
    }

    @Test func whatIsNotTheProtocolIsNamed() throws {
        for line in ["nonsense", "{}", "{\"op\":\"dance\"}", "{\"op\":\"query\",\"job\":1,\"t\":0}", "{\"op\":\"tick\",\"job\":9}"] {
            var session = ReplaySession()
            #expect(throws: ReplaySession.Problem.self) { try session.take(line) }
        }
    }

    @Test func aJobThatNobodyWatchedTeachesToo() throws {
        let trace = try #require(try Self.lines("comfy").first)
        var session = ReplaySession()
        for _ in 0..<3 { _ = try session.take(Self.operation("complete", nil, trace)) }
        _ = try session.take(Self.operation("start", 1, trace))
        let reply = try #require(try session.take("{\"op\":\"query\",\"job\":1,\"t\":0.01}"))
        let answer = try JSONDecoder().decode(Answer.self, from: Data(reply.utf8))
        #expect(answer.eta > 35 && answer.eta < 70, "the job takes 51 s: \(answer)")
    }
}
