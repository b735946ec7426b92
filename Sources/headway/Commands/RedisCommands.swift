import ArgumentParser
import FoundationEssentials
import JobStore

/// `headway queues`
struct QueuesCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "queues", abstract: "List the queues and how many jobs are where.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var redis: RedisOptions
    @Flag(help: "Print one JSON array.") var json = false

    private struct Row: Encodable {
        var name: String
        var ready: Int
        var delayed: Int
        var parked: Int
        var running: Int
        var dead: Int
        var paused: Bool
        var draining: Bool
        var maxDepth: Int?
        var maxRunning: Int?
    }

    func run() async throws {
        let settings = try common.reader(redis.flags + [.init(Settings.json, json)])
        let isJSON = try settings.value(Settings.json)
        let queues = try await RedisSession(settings).read { (store) async throws(StoreError) in try await store.queues() }
            .sorted { $0.name < $1.name }
        if isJSON {
            let rows = queues.map {
                Row(
                    name: $0.name,
                    ready: $0.ready,
                    delayed: $0.delayed,
                    parked: $0.parked,
                    running: $0.running,
                    dead: $0.dead,
                    paused: $0.isPaused,
                    draining: $0.isDraining,
                    maxDepth: $0.limits.maxDepth,
                    maxRunning: $0.limits.maxRunning
                )
            }
            return Output.standard.line(try JSONRows.text(rows))
        }
        let rows = queues.map { queue in
            [
                queue.name, "\(queue.ready)", "\(queue.delayed)", "\(queue.parked)", "\(queue.running)", "\(queue.dead)",
                Self.remarks(queue),
            ]
        }
        if rows.isEmpty { return Output.error.line("headway: no queue is known yet; a worker or --known-queue makes one") }
        let header = ["QUEUE", "READY", "DELAYED", "PARKED", "RUNNING", "DEAD", ""]
        for line in TextTable.lines(header: header, rows: rows, rightAligned: 1...5) {
            Output.standard.line(line)
        }
    }
}

extension QueuesCommand {
    /// What holds a queue's jobs: a pause, a drain, limits.
    static func remarks(_ queue: QueueStatus) -> String {
        var remarks: [String] = []
        if queue.isPaused { remarks.append("paused") }
        if queue.isDraining { remarks.append("draining") }
        if let most = queue.limits.maxDepth { remarks.append("at most \(most) wait") }
        if let most = queue.limits.maxRunning { remarks.append("at most \(most) run") }
        if let most = queue.limits.tenantMaxQueued { remarks.append("at most \(most) of a tenant wait") }
        if let most = queue.limits.tenantMaxRunning { remarks.append("at most \(most) of a tenant run") }
        if !queue.limits.tenants.isEmpty { remarks.append("\(queue.limits.tenants.count) tenants of their own") }
        return remarks.joined(separator: ", ")
    }
}

enum JSONRows {
    static func text(_ rows: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(rows), as: UTF8.self)
    }
}

/// Columns side by side.
enum TextTable {
    static func lines(header: [String], rows: [[String]], rightAligned: ClosedRange<Int>) -> [String] {
        let rows = rows.map { $0.map(TextWidth.printable) }
        let widths = header.indices.map { column in
            ([header] + rows).map { TextWidth.columns(of: $0[column]) }.max() ?? 0
        }
        return ([header] + rows).map { row in
            var line = ""
            for (column, cell) in row.enumerated() {
                let space = String(repeating: " ", count: widths[column] - TextWidth.columns(of: cell))
                line += (column > 0 ? "  " : "") + (rightAligned.contains(column) ? space + cell : cell + space)
            }
            while line.last == " " { line.removeLast() }
            return line
        }
    }
}
