import ArgumentParser
import FoundationEssentials

/// `headway why JOB`
struct WhyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "why",
        abstract: "Say why a job is where it is: what it waits for, who runs it, how it ended."
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var gateway: GatewayOptions
    @Argument(help: "Id of the job.") var job: String
    @Flag(help: "Print the gateway's answer as JSON.") var json = false

    func run() async throws {
        let settings = try common.reader([gateway.flag, .init(Settings.json, json)])
        let (url, json) = (try settings.value(Settings.gatewayURL), try settings.value(Settings.json))
        let answer = try await GatewayClient.with(baseURL: url) { try await $0.why(job) }
        if json { return Output.standard.line(answer) }
        guard let diagnosis = DiagnosisText(json: answer) else {
            throw CommandError(.failed, "the gateway's answer about \(job) is not understood; is it another version? (--json shows it)")
        }
        for line in diagnosis.lines { Output.standard.line(line) }
    }
}

/// A diagnosis in words.
struct DiagnosisText {
    private struct Answer: Decodable {
        struct Reason: Decodable {
            var message: String
        }
        struct Failure: Decodable {
            var attempt: Int
            var at: Int
            var code: String
            var message: String
        }
        var job: String
        var phase: String
        var queue: String?
        var attempt: Int
        var maxAttempts: Int
        var at: Int
        var reasons: [Reason]
        var failures: [Failure]
    }

    /// The job and where it stands, then a line for each reason and for each failed attempt.
    let lines: [String]

    /// Nil when `json` is no diagnosis.
    init?(json: String) {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        guard let answer = try? decoder.decode(Answer.self, from: Data(json.utf8)) else { return nil }
        let place = (answer.queue.map { " in \($0)" } ?? "") + ", attempt \(answer.attempt) of \(answer.maxAttempts)"
        var lines = ["\(answer.job): \(answer.phase)\(place)"]
        lines += answer.reasons.map { "  \($0.message)" }
        for failure in answer.failures {
            let age = DurationText.readable(milliseconds: max(0, answer.at - failure.at))
            lines.append("  attempt \(failure.attempt) failed \(age) ago: \(failure.message) (\(failure.code))")
        }
        self.lines = lines.map(TextWidth.printable)
    }
}
