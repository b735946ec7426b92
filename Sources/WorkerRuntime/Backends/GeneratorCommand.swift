import Glibc

/// A program, its arguments and the environment it starts from.
struct GeneratorCommand: Sendable {
    let command: [String]
    /// Without variables that begin with `HEADWAY_`: they may hold passwords.
    let environment: [String: String]

    init(_ command: [String], environment: [String: String]) {
        self.command = command
        self.environment = environment.filter { !$0.key.hasPrefix("HEADWAY_") }
    }

    /// For a program whose output nobody sees but us: it should say what it does when it does it, in lines of a usable length (tqdm
    /// reads `TQDM_*`), and without colours, which would only be taken out again.
    static let wrapped = ["PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "0.25", "TQDM_NCOLS": "120", "NO_COLOR": "1"]
    /// For one whose output is shown as it comes.
    static let shown = ["PYTHONUNBUFFERED": "1"]

    var arguments: [String] { Array(command.dropFirst()) }

    /// The environment as a program gets it, `NAME=VALUE`.
    /// - Parameters:
    ///   - defaults: what the environment that was given overrides.
    ///   - own: what its job adds.
    func variables(terminal: TerminalSize?, defaults: [String: String] = wrapped, adding own: [String: String]) -> [String] {
        var variables = defaults
        if let terminal {
            variables["COLUMNS"] = String(terminal.columns)
            variables["LINES"] = String(terminal.rows)
        }
        variables.merge(environment) { _, given in given }
        // Not the worker's terminal, if it has one. A plain xterm: bars are drawn, and lines may be drawn anew.
        if terminal != nil { variables["TERM"] = "xterm" }
        variables["HEADWAY_PROGRESS_FD"] = "3"
        variables.merge(own) { _, given in given }
        return variables.filter { !$0.value.utf8.contains(0) }.map { "\($0.key)=\($0.value)" }.sorted()
    }

    /// The path of the program.
    func executable() throws(BackendError) -> String {
        guard let name = command.first, !name.isEmpty else {
            throw .generatorNotFound("", "the command is empty")
        }
        guard !command.contains(where: { $0.utf8.contains(0) }) else { throw .generatorNotFound(name, "the command holds a zero byte") }
        if name.utf8.contains(UInt8(ascii: "/")) {
            if let problem = Self.problem(with: name) { throw .generatorNotFound(name, problem) }
            return name
        }
        for directory in (environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":") {
            let path = "\(directory)/\(name)"
            if Self.problem(with: path) == nil { return path }
        }
        throw .generatorNotFound(name, "it is not in PATH")
    }

    private static func problem(with path: String) -> String? {
        var info = stat()
        guard stat(path, &info) == 0 else { return describe(errno: errno) }
        guard info.st_mode & S_IFMT == S_IFREG else { return "it is not a file" }
        return access(path, X_OK) == 0 ? nil : "it is not executable"
    }

    /// `environ` as a dictionary.
    static func processEnvironment() -> [String: String] {
        var result: [String: String] = [:]
        var entry = environ
        while let text = entry.pointee {
            let parts = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2, !parts[0].isEmpty { result[String(parts[0])] = String(parts[1]) }
            entry += 1
        }
        return result
    }

    /// Runs `supervisor` on a thread of its own, and stops it when the task is cancelled.
    static func supervise(_ supervisor: ProcessSupervisor) async throws -> ProcessSupervisor.Outcome {
        let box = try await withTaskCancellationHandler {
            try Task.checkCancellation()
            return try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Box, any Error>) in
                let isStarted = startThread {
                    continuation.resume(with: Result { () throws(BackendError) in Box(outcome: try supervisor.run()) }.mapError { $0 })
                }
                if !isStarted {
                    continuation.resume(throwing: BackendError.system("no thread for the generator", errno: EAGAIN))
                }
            }
        } onCancel: {
            supervisor.stop.ask()
        }
        return box.outcome
    }

    private struct Box: Sendable {
        let outcome: ProcessSupervisor.Outcome
    }
}
