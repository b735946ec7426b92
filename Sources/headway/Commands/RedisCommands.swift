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
        var running: Int
        var dead: Int
        var paused: Bool
    }

    func run() async throws {
        let settings = try common.reader(redis.flags + [.init(Settings.json, json)])
        let isJSON = try settings.value(Settings.json)
        let queues = try await RedisSession(settings).read { (store) async throws(StoreError) in try await store.queues() }
            .sorted { $0.name < $1.name }
        if isJSON {
            let rows = queues.map {
                Row(name: $0.name, ready: $0.ready, delayed: $0.delayed, running: $0.running, dead: $0.dead, paused: $0.isPaused)
            }
            return Output.standard.line(try JSONRows.text(rows))
        }
        let rows = queues.map {
            ["\($0.name)", "\($0.ready)", "\($0.delayed)", "\($0.running)", "\($0.dead)", $0.isPaused ? "paused" : ""]
        }
        if rows.isEmpty { return Output.error.line("headway: no queue is known yet; a worker or --known-queue makes one") }
        for line in TextTable.lines(header: ["QUEUE", "READY", "DELAYED", "RUNNING", "DEAD", ""], rows: rows, rightAligned: 1...4) {
            Output.standard.line(line)
        }
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
