import Glibc
import ProgressCore
import Synchronization
import TestSupport

@testable import WorkerRuntime

/// Collects what a backend tells.
final class EventLog: Sendable {
    private let list = Mutex<[BackendEvent]>([])

    var events: BackendEvents { BackendEvents { event in self.list.withLock { $0.append(event) } } }
    var all: [BackendEvent] { list.withLock { $0 } }

    var lines: [String] {
        all.compactMap { if case .log(_, let text) = $0 { text } else { nil } }
    }
    var updates: [ProgressUpdate] {
        all.compactMap { if case .progress(let update) = $0 { update } else { nil } }
    }
    var dropped: Int {
        all.reduce(0) { sum, event in if case .logDropped(let count) = event { sum + count } else { sum } }
    }
}

/// Runs `script` by `program` as a job would be run.
func runScript(
    _ script: String,
    by program: [String] = ["sh", "-c"],
    grace: Duration = .seconds(5),
    params: String = "{}",
    usesTerminal: Bool = false,
    adding variables: [String: String] = [:],
    log: EventLog = EventLog()
) async throws -> BackendResult {
    let environment = GeneratorCommand.processEnvironment().merging(variables) { _, added in added }
    return try await withTemporaryDirectory { path in
        try await SubprocessBackend(command: program + [script], grace: grace, usesTerminal: usesTerminal, environment: environment)
            .run(
                job: BackendJob(
                    id: JobID("job-1")!,
                    attempt: 2,
                    pipeline: "generic",
                    paramsJSON: params,
                    inputDirectory: path + "/in",
                    outputDirectory: path + "/out"
                ),
                events: log.events
            )
    }
}

/// The failure a script ended with, or nil.
func failure(of script: String, by program: [String] = ["sh", "-c"], log: EventLog = EventLog()) async throws -> BackendError? {
    do {
        _ = try await runScript(script, by: program, log: log)
        return nil
    } catch let error as BackendError {
        return error
    }
}

/// Makes an empty file.
func touch(_ path: String) throws {
    let number = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
    guard number >= 0 else { throw TestSupportError(.system, "\(path): errno \(errno)") }
    close(number)
}

/// Writes a file that may be run.
func writeFile(_ path: String, _ text: String) throws {
    // There at once and whole: whoever looks for it may run it.
    let draft = path + ".draft"
    guard let file = fopen(draft, "we") else { throw TestSupportError(.system, "\(draft): errno \(errno)") }
    fputs(text, file)
    fclose(file)
    guard chmod(draft, 0o755) == 0, rename(draft, path) == 0 else { throw TestSupportError(.system, "\(path): errno \(errno)") }
}

func unlinkFile(_ path: String) -> Bool { unlink(path) == 0 }

func openDescriptors() -> Int {
    guard let directory = opendir("/proc/self/fd") else { return -1 }
    defer { closedir(directory) }
    var count = 0
    while readdir(directory) != nil { count += 1 }
    return count
}

/// The process ids that a script wrote, one per file `a`, `b`, …; nil until all are there.
func writtenPIDs(in path: String, _ names: [String] = ["a", "b"]) -> [pid_t]? {
    let found = names.compactMap { name -> pid_t? in
        guard let file = fopen("\(path)/\(name)", "r") else { return nil }
        defer { fclose(file) }
        var buffer = [CChar](repeating: 0, count: 32)
        guard fgets(&buffer, 32, file) != nil else { return nil }
        return pid_t(String(decoding: buffer.prefix { $0 >= 0x30 }.map { UInt8($0) }, as: UTF8.self))
    }
    return found.count == names.count ? found : nil
}

/// Whether a process exists and is no zombie.
func isAlive(_ pid: pid_t) -> Bool {
    guard let stream = fopen("/proc/\(pid)/stat", "r") else { return false }
    defer { fclose(stream) }
    var buffer = [CChar](repeating: 0, count: 256)
    guard fgets(&buffer, 256, stream) != nil else { return false }
    let text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    guard let state = text.split(separator: ")").last?.split(separator: " ").first else { return false }
    return state != "Z" && state != "X"
}

/// Children of this process that ended and were not reaped.
func zombies() -> Int {
    guard let directory = opendir("/proc") else { return -1 }
    defer { closedir(directory) }
    var count = 0
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        guard Int32(name) != nil, let stream = fopen("/proc/\(name)/stat", "r") else { continue }
        defer { fclose(stream) }
        var buffer = [CChar](repeating: 0, count: 256)
        guard fgets(&buffer, 256, stream) != nil else { continue }
        let text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
        if fields.count > 1, fields[0] == "Z", fields[1] == "\(getpid())" { count += 1 }
    }
    return count
}

func residentKilobytes() -> Int {
    guard let stream = fopen("/proc/self/statm", "r") else { return 0 }
    defer { fclose(stream) }
    var buffer = [CChar](repeating: 0, count: 128)
    guard fgets(&buffer, 128, stream) != nil else { return 0 }
    let text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return (Int(text.split(separator: " ")[1]) ?? 0) * 4
}

/// A value that a closure leaves behind.
final class Box<Value: Sendable>: Sendable {
    private let content: Mutex<Value>

    init(_ value: Value) { content = Mutex(value) }

    var value: Value { content.withLock { $0 } }
    func set(_ value: Value) { content.withLock { $0 = value } }
}
