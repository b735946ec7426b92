import ArgumentParser
import FoundationEssentials

/// `headway cancel JOB`
struct CancelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "cancel", abstract: "Cancel a job that waits or runs.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var gateway: GatewayOptions
    @Argument(help: "Id of the job.") var job: String
    @Option(help: "Why; shown to everyone who watches.") var reason: String?
    @Flag(help: "Print the gateway's answer as JSON.") var json = false

    private struct Answer: Decodable {
        var outcome: String?
        var status: String?
        var phase: String?
    }

    func run() async throws {
        let settings = try common.reader([gateway.flag, .init(Settings.cancelReason, reason), .init(Settings.json, json)])
        let (url, reason, json) = (
            try settings.value(Settings.gatewayURL), try settings.optional(Settings.cancelReason), try settings.value(Settings.json)
        )
        let answer = try await GatewayClient.with(baseURL: url) { try await $0.cancel(job, reason: reason) }
        if json { return Output.standard.line(answer) }
        let parsed = try? JSONDecoder().decode(Answer.self, from: Data(answer.utf8))
        Output.standard.line("\(job): \(parsed?.outcome ?? parsed?.status ?? parsed?.phase ?? "cancel accepted")")
    }
}

/// `headway show JOB`
struct ShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "Show everything that is known of a job.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var gateway: GatewayOptions
    @Argument(help: "Id of the job.") var job: String
    @Flag(help: "Print the gateway's answer as JSON.") var json = false

    func run() async throws {
        let settings = try common.reader([gateway.flag, .init(Settings.json, json)])
        let (url, json) = (try settings.value(Settings.gatewayURL), try settings.value(Settings.json))
        let answer = try await GatewayClient.with(baseURL: url) { try await $0.snapshot(job, isFull: true) }
        if json { return Output.standard.line(answer) }
        guard let sheet = JobSheet(json: answer) else {
            throw CommandError(.failed, "the gateway's answer about \(job) is not understood; is it another version? (--json shows it)")
        }
        for line in sheet.lines(now: JobSheet.nowMs()) { Output.standard.line(line) }
    }
}

/// `headway logs JOB`
struct LogsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "logs", abstract: "Print the newest log lines of a job's command.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var gateway: GatewayOptions
    @Argument(help: "Id of the job.") var job: String
    @Option(help: "Newest lines to print.") var limit: String?
    @Flag(help: "Print the gateway's answer as JSON.") var json = false

    private struct Answer: Decodable {
        struct Line: Decodable {
            var at: Int?
            var stream: String?
            var text: String
        }
        var lines: [Line]
    }

    func run() async throws {
        let settings = try common.reader([gateway.flag, .init(Settings.logsLimit, limit), .init(Settings.json, json)])
        let (url, limit) = (try settings.value(Settings.gatewayURL), try settings.value(Settings.logsLimit))
        let json = try settings.value(Settings.json)
        let answer = try await GatewayClient.with(baseURL: url) { try await $0.logs(job, limit: limit) }
        if json { return Output.standard.line(answer) }
        guard let parsed = try? JSONDecoder().decode(Answer.self, from: Data(answer.utf8)) else {
            throw CommandError(.failed, "the gateway's answer about the logs of \(job) is not understood (--json shows it)")
        }
        for line in parsed.lines { Output.standard.line(TextWidth.printable(line.text)) }
    }
}
