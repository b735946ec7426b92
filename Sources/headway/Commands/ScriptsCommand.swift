import ArgumentParser
import JobStore

/// `headway scripts [NAME]`
struct ScriptsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scripts",
        abstract: "Print the Lua scripts, for programs that talk to Redis themselves.",
        discussion: """
            Without a name: each script's name, SHA-1 and purpose. With one: its text, as EVAL and SCRIPT LOAD take it. Take them from the \
            version that your gateways run; docs/redis.md says how they are called.
            """
    )

    @Argument(help: "Name of the script, e.g. report.") var name: String?

    func run() async throws {
        let scripts = JobStore.scripts
        guard let name else {
            let rows = scripts.map { [$0.name, $0.sha1, $0.summary] }
            for line in TextTable.lines(header: ["SCRIPT", "SHA-1", "DOES"], rows: rows, rightAligned: 3...3) { Output.standard.line(line) }
            return
        }
        guard let script = scripts.first(where: { $0.name == name }) else {
            throw CommandError.usage("there is no script '\(name)'; there are: \(scripts.map(\.name).joined(separator: ", "))")
        }
        Output.standard.line(script.source.hasSuffix("\n") ? String(script.source.dropLast()) : script.source)
    }
}
