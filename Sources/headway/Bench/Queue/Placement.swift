import Foundation

/// Which processors redis-server and its clients may use while throughput is measured.
///
/// Left to itself the kernel puts both on one core for a while, then on two. A round trip costs 22 µs in the one case and, on a
/// virtual machine, 70 to 100 µs in the other, so that one and the same program differs by a factor of two within a run.
enum Placement: String, CaseIterable {
    /// Redis on a core of its own, everyone else on the others: as on two machines.
    case split
    /// Everyone on one core: waits for a core to wake up fall away, and what is left is processor time.
    case oneCore = "one core"

    /// Puts every thread of this process and of redis-server in its place; processes started from now on inherit ours.
    func take(redis: pid_t) throws(CommandError) {
        try Self.put(redis, on: Self.cores.prefix(1))
        try Self.put(getpid(), on: self == .split ? Self.cores.dropFirst() : Self.cores.prefix(1))
    }

    /// Ends it: everyone may use what this process could use when it started.
    static func leave(redis: pid_t) throws(CommandError) {
        for process in [redis, getpid()] { try put(process, on: cores[...]) }
    }

    /// False where there is but one core to have, or no program to choose it.
    static let isPossible = cores.count > 1 && tool != nil

    /// What this process may use, found once: later it is what a placement left of it.
    private static let cores: [Int] = {
        guard let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8),
            let line = status.split(separator: "\n").first(where: { $0.hasPrefix("Cpus_allowed_list:") })
        else {
            return []
        }
        return line.dropFirst("Cpus_allowed_list:".count).split { $0 == "," || $0.isWhitespace }.flatMap { range in
            let ends = range.split(separator: "-").compactMap { Int($0) }
            return ends.isEmpty ? [] : Array(ends[0]...ends[ends.count - 1])
        }
    }()

    /// Of util-linux, which every Debian has.
    private static let tool = ProgramSearch.find("taskset", path: ProcessInfo.processInfo.environment["PATH"] ?? "")

    private static func put(_ process: pid_t, on cores: ArraySlice<Int>) throws(CommandError) {
        guard let tool else { throw CommandError(.failed, "taskset is not installed") }
        let run = Process()
        run.executableURL = URL(fileURLWithPath: tool)
        run.arguments = ["--all-tasks", "--pid", "--cpu-list", cores.map(String.init).joined(separator: ","), "\(process)"]
        run.standardOutput = FileHandle.nullDevice
        do {
            try run.run()
        } catch {
            throw CommandError(.failed, "\(tool) does not start: \(error.localizedDescription)")
        }
        run.waitUntilExit()
        guard run.terminationStatus == 0 else { throw CommandError(.failed, "\(tool) ended with \(run.terminationStatus)") }
    }
}
