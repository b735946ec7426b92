import JobStore
import NIOCore
import ProgressCore
import Synchronization

/// Token buckets by key: each holds `burst` tokens when it has rested and gains `perSecond`.
///
/// Bounded without a clean-up: when a generation is full it becomes the old one, and what is not asked for again while the next
/// fills up is forgotten. A forgotten bucket counts as full.
struct TokenBuckets {
    private struct Bucket {
        var tokens: Double
        var at: Int
    }

    let perSecond: Double
    let burst: Double
    private let most: Int
    private var young: [Int: Bucket] = [:]
    private var old: [Int: Bucket] = [:]

    /// - Parameter most: buckets kept, in both generations together.
    init(perSecond: Double, burst: Double, most: Int) {
        self.perSecond = perSecond
        self.burst = burst
        self.most = max(2, most)
    }

    var count: Int { young.count + old.count }

    /// Takes one token.
    ///
    /// - Parameter nowMs: of a clock that never goes back.
    /// - Returns: nil when there was one, else after how many ms there will be.
    mutating func take(_ key: Int, nowMs: Int) -> Int? {
        var bucket = young[key] ?? old[key] ?? Bucket(tokens: burst, at: nowMs)
        bucket.tokens = min(burst, bucket.tokens + Double(max(0, nowMs - bucket.at)) / 1000 * perSecond)
        bucket.at = max(bucket.at, nowMs)
        let waitMs = bucket.tokens >= 1 ? nil : Int(((1 - bucket.tokens) / perSecond * 1000).rounded(.up))
        if waitMs == nil { bucket.tokens -= 1 }
        if young[key] == nil, young.count >= most / 2 {
            old = young
            young = [:]
        }
        young[key] = bucket
        old[key] = nil
        return waitMs
    }
}

/// How often producers may write through this gateway.
final class IngestLimiter: Sendable {
    private let reports: Mutex<TokenBuckets>
    private let opens: Mutex<TokenBuckets>

    init(limits: GatewayLimits) {
        let most = limits.reportersRemembered
        reports = Mutex(TokenBuckets(perSecond: limits.reportsPerSecond, burst: limits.reportsBurst, most: most))
        opens = Mutex(TokenBuckets(perSecond: limits.opensPerSecond, burst: limits.opensBurst, most: most))
    }

    /// One report. By job and token, so that nobody who only knows a job's id can keep its producer from reporting.
    func admitReport(_ job: JobID, token: String) throws(GatewayError) {
        try admit(reports, key(job.text, token), "reports of this job")
    }

    func admitOpen(_ owner: Owner) throws(GatewayError) { try admit(opens, key(owner.text, ""), "jobs of yours are opened") }

    private func admit(_ buckets: borrowing Mutex<TokenBuckets>, _ key: Int, _ what: String) throws(GatewayError) {
        let nowMs = Int(NIODeadline.now().uptimeNanoseconds / 1_000_000)
        let waitMs = buckets.withLock { $0.take(key, nowMs: nowMs) }
        guard let waitMs else { return }
        throw GatewayError(.tooManyRequests, "too many \(what): send only the newest state", retryAfterSeconds: (waitMs + 999) / 1000)
    }

    /// The standard library's hash is seeded anew in each process: nobody can aim at another's bucket.
    private func key(_ first: String, _ second: String) -> Int {
        var hasher = Hasher()
        hasher.combine(first)
        hasher.combine(second)
        return hasher.finalize()
    }
}
