import ArgumentParser

/// `headway retry JOB`
struct RetryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "retry",
        abstract: "Try a job that has ended again, as a new job, and print its id.",
        discussion: "A job is tried again once: repeating the command prints the same new id."
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var gateway: GatewayOptions
    @Argument(help: "Id of the job.") var job: String
    @Option(help: ArgumentHelp("Other params for the new job: a JSON object, or @FILE with one.", valueName: "json|@file"))
    var params: String?
    @Flag(help: "Print the gateway's answer as JSON.") var json = false

    func run() async throws {
        let settings = try common.reader([gateway.flag, .init(Settings.json, json)])
        let (url, json) = (try settings.value(Settings.gatewayURL), try settings.value(Settings.json))
        let paramsJSON = try params.map { (text) throws(CommandError) in try ParamsText(text).json }
        let answer = try await GatewayClient.with(baseURL: url) { try await Self.send(job, paramsJSON, to: $0) }
        Output.standard.line(json ? answer.answer.filter { !$0.isNewline } : answer.job)
    }

    /// A lost reply is answered by asking again: it is the same new job.
    static func send(_ job: String, _ paramsJSON: String?, to client: GatewayClient) async throws -> (job: String, answer: String) {
        var backoff = Backoff()
        while true {
            do {
                return try await client.retry(job, paramsJSON: paramsJSON)
            } catch {
                guard error.code == .linkLost, backoff.failures < 3 else { throw error }
                try await Task.sleep(for: backoff.next(random: .random(in: 0..<1)))
            }
        }
    }
}
