import ArgumentParser
import Glibc
import JobStore

/// The queue that a command is about, and where it is.
struct QueueOptions: ParsableArguments {
    @OptionGroup var common: CommonOptions
    @OptionGroup var redis: RedisOptions
    @Argument(help: "Name of the queue.") var queue: String

    func settings(_ flags: [SettingsReader.Flag] = []) throws(CommandError) -> SettingsReader {
        try common.reader(redis.flags + flags)
    }

    /// Runs `body` with a store in which the queue exists.
    func run<Value: Sendable>(
        _ settings: SettingsReader,
        _ body: @Sendable @escaping (JobStore) async throws(StoreError) -> Value
    ) async throws -> Value {
        let queue = queue
        return try await RedisSession(settings).read { (store) async throws(StoreError) in
            let names = try await store.queueNames()
            guard names.contains(queue) else {
                let known = names.sorted().prefix(20).joined(separator: ", ")
                throw StoreError(
                    .unknownQueue,
                    "there is no queue '\(queue)'; " + (known.isEmpty ? "there is none at all" : "there are: \(known)")
                )
            }
            return try await body(store)
        }
    }
}

/// `headway pause Q`
struct PauseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause",
        abstract: "Give no more jobs of a queue to workers; what runs goes on, submits are accepted."
    )

    @OptionGroup var target: QueueOptions

    func run() async throws {
        let queue = target.queue
        try await target.run(target.settings()) { (store) async throws(StoreError) in
            try await store.configure(queue: queue, [.paused(true)])
        }
        Output.standard.line("\(queue): paused; `headway resume \(queue)` goes on")
    }
}

/// `headway resume Q`
struct ResumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "resume", abstract: "End a pause.")

    @OptionGroup var target: QueueOptions

    func run() async throws {
        let queue = target.queue
        try await target.run(target.settings()) { (store) async throws(StoreError) in
            try await store.configure(queue: queue, [.paused(false)])
        }
        Output.standard.line("\(queue): resumed")
    }
}

/// `headway drain Q`
struct DrainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain",
        abstract: "Refuse new jobs for a queue and let it run empty."
    )

    @OptionGroup var target: QueueOptions
    @Flag(help: "Accept new jobs again.") var off = false
    @Flag(help: "Stay until no job waits or runs.") var wait = false

    func validate() throws {
        if off, wait { throw ValidationError("--off and --wait exclude each other: a queue that takes jobs need not become empty") }
    }

    func run() async throws {
        let (queue, isOn, isWaiting) = (target.queue, !off, wait)
        try await target.run(target.settings()) { (store) async throws(StoreError) in
            try await store.configure(queue: queue, [.draining(isOn)])
            guard isWaiting else { return }
            var told = 0
            while let left = try await store.status(ofQueues: [queue]).first?.living, left > 0 {
                if left != told { Output.error.line("headway: \(queue): \(left) jobs are left") }
                told = left
                do { try await Task.sleep(for: .milliseconds(500)) } catch { throw StoreError(.unavailable, "interrupted") }
            }
        }
        Output.standard.line("\(queue): \(isOn ? isWaiting ? "drained" : "takes no new jobs" : "takes jobs again")")
    }
}

/// `headway purge Q`
struct PurgeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "purge",
        abstract: "Cancel the waiting jobs of a queue, or forget its dead letters.",
        discussion: "Waiting jobs end CANCELLED, so that everyone who watches is told. Dead letters are deleted with all their keys."
    )

    @OptionGroup var target: QueueOptions
    @Flag(help: "Jobs in the line.") var ready = false
    @Flag(help: "Jobs that are not due yet, retries among them.") var delayed = false
    @Flag(help: "Jobs outside the line because their tenant is at its limit.") var parked = false
    @Flag(help: "Dead letters.") var dead = false
    @Flag(help: "Do not ask.") var yes = false

    private var places: [PurgePlace] {
        let chosen: [(Bool, PurgePlace)] = [(ready, .ready), (delayed, .delayed), (parked, .parked), (dead, .dead)]
        return chosen.filter(\.0).map(\.1)
    }

    func validate() throws {
        if places.isEmpty { throw ValidationError("say what to purge: --ready, --delayed, --parked or --dead") }
    }

    func run() async throws {
        let (settings, queue, places) = (try target.settings(), target.queue, places)
        if !yes {
            let status = try await target.run(settings) { (store) async throws(StoreError) in
                try await store.status(ofQueues: [queue]).first
            }
            guard isatty(STDIN_FILENO) == 1 else {
                throw CommandError.usage("purge asks before it acts, and nobody is there to answer: add --yes")
            }
            Output.error.write("headway: purge \(Self.what(places, status)) of \(queue)? [y/N] ")
            guard let answer = readLine(), ["y", "yes"].contains(answer.lowercased()) else {
                throw CommandError(.failed, "nothing was purged")
            }
        }
        let counts = try await target.run(settings) { (store) async throws(StoreError) in
            var counts: [Int] = []
            for place in places { counts.append(try await store.purge(queue: queue, place, by: "operator")) }
            return counts
        }
        for (place, count) in zip(places, counts) {
            Output.standard.line("\(queue): \(count) \(place == .dead ? "dead letters forgotten" : "\(place.rawValue) jobs cancelled")")
        }
    }

    private static func what(_ places: [PurgePlace], _ status: QueueStatus?) -> String {
        places.map { place in
            switch place {
            case .ready: "\(status?.ready ?? 0) ready jobs"
            case .delayed: "\(status?.delayed ?? 0) delayed jobs"
            case .parked: "\(status?.parked ?? 0) parked jobs"
            case .dead: "\(status?.dead ?? 0) dead letters"
            }
        }
        .joined(separator: ", ")
    }
}
