import ArgumentParser
import Foundation
import JobStore
import Logging
import NIOPosix
import ProgressCore
import RedisLink
import Telemetry
import WorkerRuntime

/// `headway bench worker`: a real worker process whose jobs run inside it, so that thousands of them are cheap. What a job does
/// stands in its params; when it started is written to a file.
struct BenchWorkerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "worker",
        abstract: "A worker that plays its jobs instead of running a command (for benchmarks and soaks).",
        shouldDisplay: false
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var redis: RedisOptions
    @Option(name: .customLong("queue"), parsing: .singleValue, help: "Queue to serve; may be repeated.") var queues: [String] = []
    @Option(help: "Name of this worker.") var name: String
    @Option(help: "File that gets a line for each start and stop of a job.") var marks: String
    @Option(help: "Directory of running jobs.") var workDir: String
    @Option(help: "Jobs at once.") var concurrency = 1
    @Option(help: "Silence after which this worker counts as lost.") var lease: String?
    @Option(help: "Pause between two signs of life.") var heartbeat: String?

    func run() async throws {
        let settings = try common.reader(redis.flags + [.init(Settings.lease, lease), .init(Settings.heartbeat, heartbeat)])
        let logger = try Logs.bootstrap(settings, label: "headway.bench.worker")
        let session = try RedisSession(settings, logger: logger)
        let client = session.client(on: MultiThreadedEventLoopGroup.singleton.next())
        var storeSettings = StoreSettings()
        storeSettings.lease = try settings.value(Settings.lease)
        storeSettings.heartbeat = try settings.value(Settings.heartbeat)
        try Directory.make(workDir)
        let worker = Worker(
            configuration: WorkerConfiguration(
                name: name,
                queues: queues,
                concurrency: concurrency,
                workDirectory: workDir,
                version: Version.text
            ),
            store: JobStore(redis: client, keys: session.keys, settings: storeSettings),
            redis: session.configuration,
            pipelines: try Pipelines.load(settings),
            backend: PlayBackend(worker: name, marks: try MarkFile(appending: marks)),
            registry: MetricsRegistry(),
            group: MultiThreadedEventLoopGroup.singleton,
            logger: logger
        )
        try await ServiceRunner.run([RedisService(client: client), worker], logger: logger)
    }
}

/// What a played job does, by the first member `play` of its params; without it, it ends at once.
struct Play: Codable, Hashable {
    var steps = 0
    var delayMs = 0
    /// Attempts that fail at their end and may be tried again.
    var failures = 0
    /// It fails for good, at its end.
    var isHopeless = false

    private enum CodingKeys: String, CodingKey {
        case steps
        case delayMs = "delay_ms"
        case failures
        case isHopeless = "hopeless"
    }

    static let none = Play()

    /// Nothing is parsed for a job that only measures the queue.
    static func inside(_ params: String) -> Play {
        struct Params: Decodable { var play: Play? }
        guard params.utf8.starts(with: "{\"play\":".utf8) else { return none }
        return (try? JSONDecoder().decode(Params.self, from: Data(params.utf8)))?.play ?? none
    }
}

struct PlayBackend: GeneratorBackend {
    /// Who plays: it stands in the result and in its failures, so that a soak can tell whose it is.
    let worker: String
    let marks: MarkFile
    let usesFiles = false
    let mayBlock = false

    func run(job: BackendJob, events: BackendEvents) async throws -> BackendResult {
        marks.write(.start, job)
        let play = Play.inside(job.paramsJSON)
        do {
            for step in 0..<play.steps {
                var update = ProgressUpdate()
                update.stage = ["read", "make", "write"][min(2, step * 3 / play.steps)]
                update.step = step + 1
                update.steps = play.steps
                events.send(.progress(update))
                try await Task.sleep(for: .milliseconds(play.delayMs))
            }
        } catch {
            marks.write(.stop, job)
            throw error
        }
        // Signed as a good result is.
        let signature = "\(worker) \(job.attempt)"
        if play.isHopeless { throw BackendError(code: "played_hopeless", message: signature, isRecoverable: false) }
        if job.attempt <= play.failures { throw BackendError(code: "played_failure", message: signature, isRecoverable: true) }
        return BackendResult(resultJSON: "{\"played\":\(play.steps),\"worker\":\"\(worker)\",\"attempt\":\(job.attempt)}")
    }
}

/// A file of lines `kind job attempt nanoseconds`, each written at once, as soon as it happens.
final class MarkFile: Sendable {
    enum Kind: String { case start, stop }

    struct Mark {
        let kind: Kind
        let job: String
        let attempt: Int
        let nanoseconds: Int

        init?(_ line: Substring) {
            let parts = line.split(separator: " ")
            guard parts.count == 4, let kind = Kind(rawValue: String(parts[0])), let attempt = Int(parts[2]), let time = Int(parts[3])
            else {
                return nil
            }
            self.kind = kind
            job = String(parts[1])
            self.attempt = attempt
            nanoseconds = time
        }
    }

    private let descriptor: CInt

    init(appending path: String) throws(CommandError) {
        descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .usage("\(path): \(SystemText.error(errno))") }
    }

    deinit { close(descriptor) }

    func write(_ kind: Kind, _ job: BackendJob) {
        let line = "\(kind.rawValue) \(job.id.text) \(job.attempt) \(MachineClock.nanoseconds())\n"
        _ = line.withCString { Glibc.write(descriptor, $0, strlen($0)) }
    }

    static func read(_ path: String) -> [Mark] {
        guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { return [] }
        return text.split(separator: "\n").compactMap(Mark.init)
    }
}
