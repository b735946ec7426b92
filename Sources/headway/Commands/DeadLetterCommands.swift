import ArgumentParser
import FoundationEssentials
import JobStore
import ProgressCore

/// `headway dead Q`
struct DeadCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dead",
        abstract: "List the dead letters of a queue, the oldest first: jobs that failed for good."
    )

    @OptionGroup var target: QueueOptions
    @Option(help: "At most so many.") var limit = 100
    @Flag(help: "Print one JSON array.") var json = false

    func validate() throws {
        guard (1...Limits.deadLetters).contains(limit) else { throw ValidationError("--limit must be from 1 to \(Limits.deadLetters)") }
    }

    func run() async throws {
        let settings = try target.settings([.init(Settings.json, json)])
        let (queue, limit) = (target.queue, limit)
        let letters = try await target.run(settings) { (store) async throws(StoreError) in
            try await store.deadLetters(queue: queue, limit: limit)
        }
        if try settings.value(Settings.json) {
            return Output.standard.line("[\(letters.map(DeadLetterText.json).joined(separator: ","))]")
        }
        if letters.isEmpty { return Output.error.line("headway: \(queue) has no dead letters") }
        let now = JobSheet.nowMs()
        let rows = letters.map { letter in
            let error = DeadLetterText.Failure(json: letter.errorJSON)
            return [
                letter.job.text, DurationText.readable(milliseconds: max(0, now - letter.finishedAtMs)) + " ago", "\(letter.attempts)",
                letter.owner.text, error.code, error.message,
            ]
        }
        for line in TextTable.lines(header: ["JOB", "FAILED", "ATTEMPTS", "OWNER", "CODE", "ERROR"], rows: rows, rightAligned: 1...2) {
            Output.standard.line(line)
        }
    }
}

/// `headway redrive Q`
struct RedriveCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "redrive",
        abstract: "Try dead letters of a queue again, each as a new job, the oldest first.",
        discussion: "Prints the old and the new id of each. A job is tried again once, also when the command is repeated."
    )

    @OptionGroup var target: QueueOptions
    @Option(name: .customLong("job"), parsing: .singleValue, help: ArgumentHelp("Only this one; may be repeated.", valueName: "job"))
    var jobs: [String] = []
    @Option(help: "Only those that failed with this error code.") var code: String?
    @Option(help: "At most so many.") var limit = Limits.deadLetters
    @Flag(help: "Print a JSON object for each.") var json = false

    func validate() throws {
        guard (1...Limits.deadLetters).contains(limit) else { throw ValidationError("--limit must be from 1 to \(Limits.deadLetters)") }
        for job in jobs where JobID(job) == nil { throw ValidationError("--job \(job.debugDescription) is no job id") }
    }

    func run() async throws {
        let settings = try target.settings([.init(Settings.json, json)])
        let isJSON = try settings.value(Settings.json)
        let (queue, code, limit, jobs) = (target.queue, code, limit, Set(jobs.compactMap { JobID($0) }))
        let count = try await target.run(settings) { (store) async throws(StoreError) in
            guard try await store.status(ofQueues: [queue]).first?.isDraining != true else {
                throw StoreError(.draining, "the queue \(queue) takes no new jobs while it is drained: `headway drain \(queue) --off`")
            }
            let letters = try await store.deadLetters(queue: queue, limit: Limits.deadLetters).filter { letter in
                (jobs.isEmpty || jobs.contains(letter.job)) && (code == nil || DeadLetterText.Failure(json: letter.errorJSON).code == code)
            }
            for letter in letters.prefix(limit) {
                var random = SystemRandomNumberGenerator()
                let successor = JobID.make(unixMs: JobSheet.nowMs(), random: &random)
                // Each is told as soon as it is done: what comes later may be refused by a limit.
                let new = try await store.retry(letter.job, successor: successor).head.job
                Output.standard.line(isJSON ? "{\"job\":\"\(letter.job)\",\"retried_as\":\"\(new)\"}" : "\(letter.job) -> \(new)")
            }
            return min(limit, letters.count)
        }
        if count == 0 { Output.error.line("headway: \(queue) has no such dead letters") }
        if count < jobs.count { throw CommandError(.absent, "\(jobs.count - count) of the jobs are no dead letters of \(queue)") }
    }
}

/// Dead letters as text.
enum DeadLetterText {
    struct Failure {
        private struct Record: Decodable {
            var code: String?
            var message: String?
        }
        let code: String
        let message: String

        init(json: String) {
            let record = try? JSONDecoder().decode(Record.self, from: Data(json.utf8))
            code = record?.code ?? "unknown"
            message = record?.message ?? ""
        }
    }

    static func json(_ letter: DeadLetter) -> String {
        "{\"job\":\"\(letter.job)\",\"finished_at\":\(letter.finishedAtMs),\"pipeline\":\(JSONText.quoted(letter.pipeline)),"
            + "\"owner\":\(JSONText.quoted(letter.owner.text)),\"attempts\":\(letter.attempts),\"error\":\(letter.errorJSON)}"
    }
}
