import Glibc
import TestSupport

/// One place for a worker process, whose way to Redis can be cut; what is wrong with it is decided by a seeded generator.
struct SoakWorker {
    enum Trouble: CaseIterable {
        /// `kill -9`, and a new one after a while.
        case killed
        /// SIGTERM: it hands its jobs back and ends.
        case stopped
        /// SIGSTOP, often beyond its lease, and back.
        case frozen
        /// Its connections are closed and refused.
        case cut
        /// Its connections stay and nothing passes.
        case stalled
        /// What it says arrives, and no answer comes back.
        case deaf
    }

    let deployment: Deployment
    let slot: Int
    let queues: [String]
    let proxy: TCPProxy
    private(set) var troubles: [Trouble: Int] = [:]
    /// Of its processes so far.
    private(set) var names: [String] = []
    private var marksPath = ""
    private var process: HeadwayProcess?
    private var generator: SeededGenerator

    static let lease = Duration.milliseconds(1500)

    init(_ deployment: Deployment, slot: Int, queues: [String], seed: Int) async throws {
        self.deployment = deployment
        self.slot = slot
        self.queues = queues
        generator = SeededGenerator(seed &* 31 &+ slot)
        proxy = try await TCPProxy.start(to: deployment.redis.port)
        try start()
    }

    private mutating func start() throws {
        let name = "w\(slot)-\(names.count + 1)"
        names.append(name)
        marksPath = "\(deployment.directory)/\(name).marks"
        var arguments = [
            "bench", "worker", "--redis", "redis://127.0.0.1:\(proxy.port)", "--name", name, "--concurrency", "3",
            "--marks", marksPath, "--work-dir", "\(deployment.directory)/soak",
            "--lease", "1500ms", "--heartbeat", "400ms", "--log-level", "info",
        ]
        for queue in queues { arguments += ["--queue", queue] }
        process = try deployment.headway(name, arguments)
    }

    /// Works a while, then has its trouble, over and over, until `isOver`; then it is whole again.
    mutating func run(until isOver: () -> Bool) async throws {
        // Each kind once, in an order of this place's own, and then by chance.
        var first = Trouble.allCases.shuffled(using: &generator)
        while !isOver() {
            try await work(until: isOver)
            let trouble = first.popLast() ?? generator.pick(Trouble.allCases)
            troubles[trouble, default: 0] += 1
            switch trouble {
            case .killed:
                process?.kill()
                try await pause(0...1000)
                try start()
            case .stopped:
                process?.process.signal(SIGTERM)
                _ = try await process?.process.waitForExit(within: .seconds(60))
                try start()
            case .frozen:
                process?.process.signal(SIGSTOP)
                try await pause(200...3500)
                process?.process.signal(SIGCONT)
            case .cut:
                proxy.set(.cut)
                try await pause(100...3500)
                proxy.set(.open)
            case .stalled:
                proxy.set(.stalled)
                try await pause(100...4500)
                proxy.set(.open)
            case .deaf:
                proxy.set(.deaf)
                try await pause(100...3000)
                proxy.set(.open)
            }
            if let exit = process?.process.exit {
                throw TestSupportError(.process, "worker \(slot) ended by itself: \(exit) \(process?.errors ?? "")")
            }
        }
    }

    /// Lets the process start so many jobs, however fast the machine is; where there are none, for some seconds.
    private mutating func work(until isOver: () -> Bool) async throws {
        let enough = Int.random(in: 1...80, using: &generator) + starts
        let deadline = ContinuousClock.now + .seconds(10)
        while starts < enough, !isOver(), .now < deadline { try await Task.sleep(for: .milliseconds(20)) }
    }

    /// Jobs that the process has started.
    private var starts: Int {
        guard let file = fopen(marksPath, "r") else { return 0 }
        defer { fclose(file) }
        var count = 0
        while true {
            let byte = fgetc(file)
            if byte == EOF { return count }
            if byte == 0x0A { count += 1 }
        }
    }

    private mutating func pause(_ milliseconds: ClosedRange<Int>) async throws {
        try await Task.sleep(for: .milliseconds(Int.random(in: milliseconds, using: &generator)))
    }
}
