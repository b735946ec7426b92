import ArgumentParser
import Foundation
import JobStore
import ProgressCore

/// `headway submit`
struct SubmitCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "submit",
        abstract: "Submit a job, with input files if it needs any, and print its id.",
        discussion: "With --watch it ends like `headway watch`; with --output as well, each downloaded file's path is a line of its own."
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var gateway: GatewayOptions
    @Option(help: "Queue of the new job.") var queue: String?
    @Option(help: "Pipeline of the new job.") var pipeline: String?
    @Option(help: ArgumentHelp("What the generator is asked to do: a JSON object, or @FILE with one.", valueName: "json|@file"))
    var params: String?
    @Option(name: .customLong("input"), parsing: .singleValue, help: ArgumentHelp("File to upload; may be repeated.", valueName: "file"))
    var inputs: [String] = []
    @Option(help: "Id of the new job; made up when not given.") var id: String?
    @Option(help: "0 to 9; higher goes first.") var priority: String?
    @Option(help: "Label of workers that should run it, if one is free soon.") var prefer: String?
    @Option(name: .customLong("class"), help: "Kind of job or machine; durations are learned for each.") var jobClass: String?
    @Flag(help: "It has to load its models first.") var cold = false
    @Option(help: ArgumentHelp("Group that it is a child of.", valueName: "job")) var parent: String?
    @Option(help: "It is a group of so many children and no work of its own; --queue is not needed.") var children: String?
    @Flag(help: "Stay and watch the job until it ends.") var watch = false
    @Flag(help: "Print JSON lines for programs.") var json = false
    @Option(help: ArgumentHelp("With --watch: directory for the result files.", valueName: "dir")) var output: String?
    @Option(help: "With --watch: give up after so long without any word from the gateway.") var lostAfter: String?

    func run() async throws {
        let settings = try common.reader([
            gateway.flag, .init(Settings.submitQueue, queue), .init(Settings.submitPipeline, pipeline),
            .init(Settings.submitParams, params),
            .init(Settings.submitInputs, inputs), .init(Settings.submitID, id), .init(Settings.submitPriority, priority),
            .init(Settings.submitPrefer, prefer), .init(Settings.submitClass, jobClass), .init(Settings.submitCold, cold),
            .init(Settings.submitParent, parent),
            .init(Settings.submitChildren, children),
            .init(Settings.submitWatch, watch), .init(Settings.json, json), .init(Settings.submitOutput, output),
            .init(Settings.lostAfter, lostAfter),
        ])
        let request = try SubmitRequest(settings)
        let options = try WatchSession.Options(settings)
        let isWatching = try settings.value(Settings.submitWatch)
        let directory = try settings.optional(Settings.submitOutput)
        if directory != nil, !isWatching { throw CommandError.usage("--output needs --watch: files exist only when the job has ended") }
        if let directory { try Directory.make(directory) }

        let end = try await GatewayClient.with(baseURL: settings.value(Settings.gatewayURL)) { client -> JobEnd? in
            let (job, answer) = try await request.send(to: client)
            guard isWatching else {
                Output.standard.line(options.isJSON ? answer.filter { !$0.isNewline } : job)
                return nil
            }
            Output.standard.line(options.isJSON ? "{\"type\":\"submitted\",\"job\":\(JSONText.quoted(job))}" : job)
            guard let ended = try await WatchSession(gateway: client, options: options).run([job]).first else { return nil }
            if ended.end == .complete, let directory {
                try await Self.download(ended, from: client, into: directory, isJSON: options.isJSON)
            }
            return ended.end
        }
        if let end { throw ExitCode(end.exitCode) }
    }

    private static func download(
        _ ended: WatchSession.Ended,
        from client: GatewayClient,
        into directory: String,
        isJSON: Bool
    ) async throws {
        for file in ended.event?.result?.files ?? [] {
            let path = try await client.download(file, into: directory)
            let json = "{\"type\":\"file\",\"job\":\(JSONText.quoted(ended.job)),\"path\":\(JSONText.quoted(path))}"
            Output.standard.line(isJSON ? json : path)
        }
    }
}

/// Params as given on a command line: a JSON object, or `@FILE` with one.
struct ParamsText {
    let json: String
    /// Names of the object's members.
    let keys: Set<String>

    init(_ given: String) throws(CommandError) {
        let source = given.first == "@" ? String(given.dropFirst()) : "--params"
        json = given.first == "@" ? try TextFile.read(source, limit: Limits.paramsBytes) : given
        guard let keys = RawJSON.keys(ofObject: json) else {
            throw .usage("\(source): not a JSON object; write for example '{\"prompt\": \"a cat\"}'")
        }
        guard json.utf8.count <= Limits.paramsBytes else {
            throw .usage("\(source): \(json.utf8.count) bytes of params; at most \(Limits.paramsBytes) (send large data with --input)")
        }
        self.keys = keys
    }
}

/// What is submitted, read and checked before anything is sent.
struct SubmitRequest: Sendable {
    /// Nil for a group.
    let queue: String?
    /// Nil for a group that names none.
    let pipeline: String?
    let paramsJSON: String
    let inputs: [String]
    let id: String?
    let priority: Int?
    let prefer: String?
    let jobClass: String?
    let isCold: Bool
    let parent: String?
    let children: Int?
    private let paramKeys: Set<String>

    init(_ settings: SettingsReader) throws(CommandError) {
        children = try settings.optional(Settings.submitChildren)
        parent = try settings.optional(Settings.submitParent)
        prefer = try settings.optional(Settings.submitPrefer)
        jobClass = try settings.optional(Settings.submitClass)
        isCold = try settings.value(Settings.submitCold)
        let isGroup = children != nil
        queue = isGroup ? try settings.optional(Settings.submitQueue) : try settings.value(Settings.submitQueue)
        pipeline = isGroup ? try settings.optional(Settings.submitPipeline) : try settings.value(Settings.submitPipeline)
        inputs = try settings.value(Settings.submitInputs)
        id = try settings.optional(Settings.submitID)
        priority = try settings.optional(Settings.submitPriority)
        let params = try ParamsText(settings.value(Settings.submitParams))
        paramsJSON = params.json
        paramKeys = params.keys
        if isGroup, parent != nil { throw .usage("--children and --parent exclude each other: a child cannot be a group") }
        if isGroup, prefer != nil || priority != nil || jobClass != nil || isCold {
            throw .usage("a group is no work itself: give --priority, --prefer, --class and --cold to its children")
        }
        try Self.check(id: id, parent: parent)
        guard inputs.count <= Limits.inputsPerSubmit else {
            throw .usage("\(inputs.count) inputs are too many; at most \(Limits.inputsPerSubmit)")
        }
        if !inputs.isEmpty, paramKeys.contains("inputs") { throw .usage("--input and params.inputs exclude each other") }
        let names = inputs.map { $0.split(separator: "/").last.map(String.init) ?? $0 }
        guard Set(names).count == names.count else {
            throw .usage("two inputs have the same file name; the generator could not tell them apart")
        }
        // Fail before the first upload, not after it.
        for input in inputs { _ = try OpenFile.open(input) }
    }

    private static func check(id: String?, parent: String?) throws(CommandError) {
        let rule = "ids are 1 to 128 characters of A-Z a-z 0-9 . _ : -"
        if let parent, JobID(parent) == nil || parent.contains("~") {
            throw .usage("--parent \(parent.debugDescription) is no group; \(rule)")
        }
        guard let id else { return }
        guard let job = JobID(id) else { throw .usage("--id \(id.debugDescription) is no job id; \(rule)") }
        if let parent, job.childNumber == nil || job.root != parent {
            throw .usage("--id \(id) is no child of \(parent): it must be \(parent)~ and a number, or be left out")
        }
        if parent == nil, job.childNumber != nil {
            throw .usage("--id \(id) is a child's: give --parent \(job.root) too; other ids are without ~, \(rule)")
        }
    }

    /// A child without an id of its own takes the group's next number, each time it is submitted.
    private var isRepeatable: Bool { parent == nil || id != nil }

    /// The body of `POST /v1/jobs`.
    func json(uploads: [GatewayClient.Upload], idempotencyKey: String?) -> String {
        let list = uploads.map { "{\"upload\":\(JSONText.quoted($0.upload)),\"name\":\(JSONText.quoted($0.name))}" }
        let params =
            uploads.isEmpty
            ? paramsJSON
            : RawJSON.adding("inputs", json: "[\(list.joined(separator: ","))]", toObject: paramsJSON, isEmpty: paramKeys.isEmpty)
        var fields: [String] = []
        if let queue { fields.append("\"queue\":\(JSONText.quoted(queue))") }
        if let pipeline { fields.append("\"pipeline\":\(JSONText.quoted(pipeline))") }
        if let parent { fields.append("\"parent\":\(JSONText.quoted(parent))") }
        if let children { fields.append("\"children\":\(children)") }
        if let prefer { fields.append("\"prefer\":\(JSONText.quoted(prefer))") }
        if let jobClass { fields.append("\"class\":\(JSONText.quoted(jobClass))") }
        if isCold { fields.append("\"cold\":true") }
        if let id { fields.append("\"id\":\(JSONText.quoted(id))") }
        if let idempotencyKey, id == nil, parent == nil { fields.append("\"idempotency_key\":\(JSONText.quoted(idempotencyKey))") }
        if let priority { fields.append("\"priority\":\(priority)") }
        fields.append("\"params\":\(params)")
        return "{\(fields.joined(separator: ","))}"
    }

    /// Uploads and submits. A lost reply is answered by asking again: id or idempotency key make it one job.
    func send(to client: GatewayClient) async throws -> (job: String, answer: String) {
        var uploads: [GatewayClient.Upload] = []
        for input in inputs { uploads.append(try await client.upload(input)) }
        let body = json(uploads: uploads, idempotencyKey: UUID().uuidString.lowercased())
        var backoff = Backoff()
        while true {
            do {
                return try await client.submit(json: body)
            } catch {
                guard error.code == .linkLost, isRepeatable, backoff.failures < 3 else { throw error }
                try await Task.sleep(for: backoff.next(random: .random(in: 0..<1)))
            }
        }
    }
}

/// Directories of ours.
enum Directory {
    static func make(_ path: String) throws(CommandError) {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw .usage("\(path): the directory cannot be made; choose another or create it")
        }
    }
}
