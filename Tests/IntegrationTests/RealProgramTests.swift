import Glibc
import JobStore
import ProgressCore
import TestSupport
import Testing

/// Command-line programs from PyPI that draw tqdm bars, run by a worker as they are (`Tests/programs/requirements.txt`).
@Suite(.serialized, .timeLimit(.minutes(6))) struct RealProgramTests {
    private func program(_ name: String) throws -> String {
        let path = Deployment.file(".venv/bin/\(name)")
        guard access(path, X_OK) == 0 else { throw TestSupportError(.missingProgram, "\(path) is not there: run scripts/setup.sh") }
        return path
    }

    /// A text that takes a program some seconds.
    private func corpus(lines: Int, in deployment: Deployment) throws -> String {
        let path = deployment.directory + "/corpus.txt"
        guard let file = fopen(path, "w") else { throw TestSupportError(.system, "\(path) cannot be written") }
        defer { fclose(file) }
        var random = SeededGenerator(1)
        let words = (0..<2000).map { _ in
            String(
                decoding: (0..<Int.random(in: 2...9, using: &random)).map { _ in UInt8.random(in: 97...112, using: &random) },
                as: UTF8.self
            )
        }
        for _ in 0..<lines { fputs((0..<10).map { _ in random.pick(words) }.joined(separator: " ") + "\n", file) }
        return path
    }

    /// Runs a shell line to its end and looks at its bar on the way.
    private func track(_ command: String, stage: String?, steps: Int, flags: [String] = [], in deployment: Deployment) async throws {
        _ = try await deployment.worker(command: ["sh", "-c", command], flags: flags)
        let job = try await deployment.submit("a")
        var seen: [Int] = []
        try await eventually(within: .seconds(120), "the bar is on its way") {
            guard let snapshot = try await deployment.store.snapshot(job) else { return false }
            let fields = snapshot.fields
            if fields["steps"] == "\(steps)", fields["stage"] == stage, let step = fields["step"].flatMap(Int.init), step > 0, step < steps
            {
                if seen.last != step { seen.append(step) }
            }
            return snapshot.phase.isTerminal
        }
        let end = try await deployment.waitForEnd(job, within: .seconds(120))
        #expect(end.phase == .complete, "\(end.body)")
        #expect(seen == seen.sorted(), "\(seen)")
        #expect(end.fields["steps"] == "\(steps)" && end.fields["stage"] == stage, "\(end.body)")
        // One line for the bar, whatever it drew.
        let lines = try await deployment.store.logs(job, limit: 100).map(\.text)
        #expect(lines.count <= 2 && lines.contains { $0.contains("100%|") }, "\(lines)")
    }

    @Test(arguments: [[], ["--pty"]]) func tqdmItself(_ flags: [String]) async throws {
        try await Deployment.with { deployment in
            let command =
                "seq 150 | while read -r n; do sleep 0.02; echo $n; done | \(try program("tqdm")) --total 150 --desc Copying >/dev/null"
            try await track(command, stage: "Copying", steps: 150, flags: flags, in: deployment)
        }
    }

    @Test func subwordNMT() async throws {
        try await Deployment.with { deployment in
            let text = try corpus(lines: 2000, in: deployment)
            let command = "\(try program("subword-nmt")) learn-bpe --symbols 600 --input \(text) --output /dev/null"
            try await track(command, stage: nil, steps: 600, in: deployment)
        }
    }

    /// It leaves the work to processes of its own.
    @Test func sacremoses() async throws {
        try await Deployment.with { deployment in
            let text = try corpus(lines: 4000, in: deployment)
            let command = "\(try program("sacremoses")) --language en --processes 2 tokenize <\(text) >/dev/null"
            try await track(command, stage: nil, steps: 4000, in: deployment)
        }
    }
}
