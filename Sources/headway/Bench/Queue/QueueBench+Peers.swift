import Foundation

/// Other queues, measured by a program of their own beside ours, on the same Redis.
extension QueueBench {
    private struct Answer: Decodable {
        /// Waits from submit to start.
        var milliseconds: [Double]
        var submittedPerSecond: Double
        /// Jobs of a line that is there, started by one worker process.
        var drainedPerSecond: Double
    }

    func peers(_ program: String) async throws {
        for name in try await Self.output(of: program, ["list"]).split(whereSeparator: \.isWhitespace).map(String.init) {
            try redis.flush()
            let text = try await Self.output(of: program, [name, redis.url, "\(scale.latencyJobs)"])
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            guard let answer = try? decoder.decode(Answer.self, from: Data(text.utf8)) else {
                throw CommandError(.failed, "\(program) \(name) said '\(text.prefix(200))'")
            }
            let timings = Timings(microseconds: answer.milliseconds.map { $0 * 1000 })
            guard timings.microseconds.count == scale.latencyJobs else {
                throw CommandError(.failed, "\(name) started \(timings.microseconds.count) of \(scale.latencyJobs) jobs")
            }
            figures.add("\(name): submit, one at a time", answer.submittedPerSecond, "/s")
            figures.add("\(name): a line drained", answer.drainedPerSecond, "/s")
            figures.add("\(name): submit to start, p50", timings.milliseconds(at: 0.5), "ms")
            figures.add("\(name): submit to start, p99", timings.milliseconds(at: 0.99), "ms")
        }
        for share in ["p50", "p99"] {
            let rivals = figures.all.filter { $0.name.hasSuffix(": submit to start, \(share)") }
            guard let best = rivals.min(by: { $0.median < $1.median }), let ours = figures["submit to start, \(share)"] else { continue }
            let name = best.name.prefix { $0 != ":" }
            figures.set("submit to start, \(share), ahead of every peer", ours.rounds, "ms", .below(String(name), best.median))
        }
    }

    /// Runs a program to its end and returns what it printed.
    private static func output(of program: String, _ arguments: [String]) async throws -> String {
        let process = Process()
        let pipe = Pipe()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardOutput = pipe
        try process.run()
        // Blocks a thread of its own until the program has closed its output.
        let data = await withCheckedContinuation { continuation in
            Thread.detachNewThread { continuation.resume(returning: pipe.fileHandleForReading.readDataToEndOfFile()) }
        }
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw CommandError(.failed, "\(program) \(arguments.joined(separator: " ")) ended with \(process.terminationStatus)")
        }
        return String(decoding: data, as: UTF8.self)
    }
}
