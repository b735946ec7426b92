import Foundation
import Synchronization

/// Counts the commands that clients send, seen by `MONITOR`: what scripts do inside is not sent.
final class CommandCounter: Sendable {
    private struct State {
        var counts: [String: Int] = [:]
        var failure: String?
        var isStopping = false
        var hasStopped = false
    }

    private let state = Mutex(State())

    /// - Parameter ignored: name given by `CLIENT SETNAME` of the connections that are not counted.
    init(_ redis: BenchRedis, ignoring ignored: String) throws(CommandError) {
        let clients = try redis.connect().command(["CLIENT", "LIST"]).text ?? ""
        let addresses = Set(
            clients.split(separator: "\n").filter { $0.contains(" name=\(ignored) ") }.compactMap { line in
                line.split(separator: " ").first { $0.hasPrefix("addr=") }.map { String($0.dropFirst(5)) }
            }
        )
        let port = redis.port
        // A thread of its own: hiredis blocks it.
        let thread = Thread {
            do throws(CommandError) {
                let connection = try HiredisConnection(port: port)
                try connection.command(["MONITOR"])
                while !self.state.withLock({ $0.isStopping }) {
                    for line in try connection.arrived(within: 50) { self.count(line.text ?? "", addresses) }
                }
            } catch {
                self.state.withLock { $0.failure = error.message }
            }
            self.state.withLock { $0.hasStopped = true }
        }
        thread.start()
    }

    /// `1700000000.123456 [0 127.0.0.1:5555] "EVALSHA" "…"`; inside a script the bracket says `[0 lua]`.
    private func count(_ line: String, _ ignored: Set<String>) {
        let parts = line.split(separator: " ", maxSplits: 4)
        guard parts.count >= 4, parts[2] != "lua]", !ignored.contains(String(parts[2].dropLast())) else { return }
        var name = parts[3].filter { $0 != "\"" }.uppercased()
        if name == "EVALSHA" || name == "EVAL" { name += " " + (parts.last?.dropFirst().prefix(7) ?? "") }
        state.withLock { $0.counts[name, default: 0] += 1 }
    }

    /// Stops counting: commands by name.
    func stop() async throws(CommandError) -> [String: Int] {
        state.withLock { $0.isStopping = true }
        while !state.withLock({ $0.hasStopped }) { try? await Task.sleep(for: .milliseconds(5)) }
        let (counts, failure) = state.withLock { ($0.counts, $0.failure) }
        if let failure { throw CommandError(.failed, failure) }
        return counts
    }
}
