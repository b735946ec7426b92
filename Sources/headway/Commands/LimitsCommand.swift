import ArgumentParser
import JobStore

/// `headway limits Q`
struct LimitsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "limits",
        abstract: "Show the limits of a queue, after changing those that are named.",
        discussion: "With --tenant, --weight, --max-queued and --max-running are that tenant's own."
    )

    /// A whole number, or `none` for no limit.
    struct Bound: ExpressibleByArgument, Equatable {
        let number: Int?

        init?(argument: String) {
            if argument == "none" {
                number = nil
            } else if let number = Int(argument), (0...1_000_000_000).contains(number) {
                self.number = number
            } else {
                return nil
            }
        }
    }

    @OptionGroup var target: QueueOptions
    @Option(help: ArgumentHelp("Most jobs that wait.", valueName: "n|none")) var maxDepth: Bound?
    @Option(help: ArgumentHelp("Most jobs that run.", valueName: "n|none")) var maxRunning: Bound?
    @Option(help: ArgumentHelp("Most waiting jobs of any one tenant.", valueName: "n|none")) var tenantMaxQueued: Bound?
    @Option(help: ArgumentHelp("Most running jobs of any one tenant.", valueName: "n|none")) var tenantMaxRunning: Bound?
    @Option(help: "The tenant whose own limits are meant: an owner's text up to the first /.") var tenant: String?
    @Option(help: ArgumentHelp("With --tenant: its share when several wait, 1 to 240; others have 1.", valueName: "n|none"))
    var weight: Bound?
    @Option(help: ArgumentHelp("With --tenant: most of its jobs that wait.", valueName: "n|none")) var maxQueued: Bound?
    @Flag(help: "Print one JSON object.") var json = false

    func validate() throws {
        if tenant == nil, weight != nil || maxQueued != nil {
            throw ValidationError("--weight and --max-queued are a tenant's: name it with --tenant")
        }
        if let tenant, tenant.isEmpty || tenant.contains("/") || tenant.utf8.count > StoreLimits.nameBytes {
            throw ValidationError("--tenant \(tenant.debugDescription) is no tenant: 1 to \(StoreLimits.nameBytes) bytes without /")
        }
        if let share = weight?.number, !(1...240).contains(share) { throw ValidationError("--weight must be from 1 to 240, or none") }
    }

    var changes: [QueueSetting] {
        var changes: [QueueSetting] = []
        func add(_ bound: Bound?, _ make: (Int?) -> QueueSetting) {
            if let bound { changes.append(make(bound.number)) }
        }
        add(maxDepth) { .maxDepth($0) }
        add(tenantMaxQueued) { .tenantMaxQueued($0) }
        add(tenantMaxRunning) { .tenantMaxRunning($0) }
        guard let tenant else {
            add(maxRunning) { .maxRunning($0) }
            return changes
        }
        add(maxRunning) { .maxRunningOf(tenant: tenant, $0) }
        add(maxQueued) { .maxQueuedOf(tenant: tenant, $0) }
        add(weight) { .weightOf(tenant: tenant, $0) }
        return changes
    }

    func run() async throws {
        let settings = try target.settings([.init(Settings.json, json)])
        let (queue, changes) = (target.queue, changes)
        let status = try await target.run(settings) { (store) async throws(StoreError) in
            if !changes.isEmpty { try await store.configure(queue: queue, changes) }
            return try await store.status(ofQueues: [queue]).first
        }
        guard let status else { throw CommandError(.failed, "the queue \(queue) could not be read") }
        if try settings.value(Settings.json) { return Output.standard.line(LimitsText.json(status)) }
        for line in LimitsText.lines(status) { Output.standard.line(line) }
    }
}

/// A queue's limits as text.
enum LimitsText {
    private static func rows(_ limits: QueueLimits) -> [(String, Int?)] {
        [
            ("max_depth", limits.maxDepth), ("max_running", limits.maxRunning), ("tenant_max_queued", limits.tenantMaxQueued),
            ("tenant_max_running", limits.tenantMaxRunning),
        ]
    }

    static func lines(_ status: QueueStatus) -> [String] {
        func text(_ number: Int?) -> String { number.map(String.init) ?? "none" }
        var lines = rows(status.limits).map { name, number in
            name + String(repeating: " ", count: 20 - name.utf8.count) + text(number)
        }
        guard !status.limits.tenants.isEmpty else { return lines }
        let tenants = status.limits.tenants.sorted { $0.key < $1.key }.map { name, own in
            [name, own.weight.map(String.init) ?? "1", text(own.maxQueued), text(own.maxRunning)]
        }
        lines += [""] + TextTable.lines(header: ["TENANT", "WEIGHT", "MAX QUEUED", "MAX RUNNING"], rows: tenants, rightAligned: 1...3)
        return lines
    }

    static func json(_ status: QueueStatus) -> String {
        func text(_ number: Int?) -> String { number.map(String.init) ?? "null" }
        let tenants = status.limits.tenants.sorted { $0.key < $1.key }.map { name, own in
            "\(JSONText.quoted(name)):{\"weight\":\(own.weight ?? 1),\"max_queued\":\(text(own.maxQueued)),\"max_running\":\(text(own.maxRunning))}"
        }
        let own = rows(status.limits).map { ",\"\($0)\":\(text($1))" }.joined()
        return "{\"queue\":\"\(status.name)\"\(own),\"tenants\":{\(tenants.joined(separator: ","))}}"
    }
}
