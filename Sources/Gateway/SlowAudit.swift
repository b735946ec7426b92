import JobStore
import Logging
import Telemetry

/// Looks at every key now and then and mends what can be mended: what a lost key or a full disk left behind must not wait for a person.
///
/// Every gateway runs it; Redis lets one of them through.
struct SlowAudit: Sendable {
    private let store: JobStore
    private let limits: GatewayLimits
    private let random: @Sendable () -> UInt64
    private let logger: Logger
    private let findings: Gauge
    private let repaired: Counter

    init(
        store: JobStore,
        limits: GatewayLimits,
        random: @escaping @Sendable () -> UInt64,
        registry: MetricsRegistry,
        logger: Logger
    ) {
        self.store = store
        self.limits = limits
        self.random = random
        self.logger = logger
        findings = registry.gauge(.auditFindings)
        repaired = registry.counter(.auditRepaired)
    }

    /// Until cancelled.
    func run() async {
        while !Task.isCancelled {
            // A tenth more or less, so that gateways that started together do not stay together.
            let jitter = 0.9 + 0.2 * Double(random() % 1000) / 1000
            do { try await Task.sleep(for: limits.auditInterval * jitter) } catch { return }
            do throws(StoreError) {
                // Half the interval: who audited last may be gone by then.
                if try await store.mayAudit(every: limits.auditInterval / 2) { try await audit() }
            } catch {
                logger.debug(
                    "audit failed",
                    metadata: [LogKey.errorCode: "\(error.code.rawValue)", LogKey.errorMessage: "\(error.message)"]
                )
            }
        }
    }

    func audit() async throws(StoreError) {
        var options = AuditOptions(fix: true)
        options.confirmAfter = limits.auditConfirm
        options.pause = limits.auditPause
        let report = try await store.audit(options)
        findings.set(report.left)
        repaired.increment(by: report.repaired)
        for finding in report.findings.prefix(limits.auditLogLines) {
            logger.warning(
                "audit finding",
                metadata: [
                    LogKey.errorCode: "\(finding.code.rawValue)", LogKey.errorMessage: "\(finding.message)",
                    "repaired": "\(finding.isRepaired)",
                ]
            )
        }
        logger.info("audit done", metadata: [LogKey.count: "\(report.jobs)", "findings": "\(report.findings.count)"])
    }
}
