import ArgumentParser
import JobStore

/// `headway audit`
struct AuditCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit",
        abstract: "Look at every key: each job in one place, leases with jobs, counts that add up, nothing kept for ever.",
        discussion:
            "Safe while everything runs; what looks wrong is looked at twice. Ends with 0 when all is well, 1 when findings are left."
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var redis: RedisOptions
    @Flag(help: "Repair what can be repaired without guessing.") var fix = false
    @Flag(help: "Print one JSON object.") var json = false

    func run() async throws {
        let settings = try common.reader(redis.flags + [.init(Settings.json, json)])
        let options = AuditOptions(fix: fix)
        let report = try await RedisSession(settings).read { (store) async throws(StoreError) in try await store.audit(options) }
        if try settings.value(Settings.json) {
            Output.standard.line(report.json)
        } else {
            for finding in report.findings {
                Output.standard.line(
                    "\(finding.code.rawValue): \(TextWidth.printable(finding.message))\(finding.isRepaired ? "; repaired" : "")"
                )
            }
            Output.error.line("headway: \(Self.summary(report))")
        }
        if !report.isClean { throw ExitCode(1) }
    }

    static func summary(_ report: AuditReport) -> String {
        var text = "\(report.jobs) jobs, \(report.keys) keys: "
        text += report.findings.isEmpty ? "all is well" : "\(report.left) findings left, \(report.repaired) repaired"
        if report.isCut { text += "; there are more findings than one audit takes, run it again" }
        for queue in report.uncounted { text += "; \(queue) is too long to count each tenant's jobs, only their sum was checked" }
        return text
    }
}
