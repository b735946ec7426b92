public import ProgressCore
import RedisLink

/// Where a waiting job stands.
public enum JobPlace: Sendable, Hashable {
    /// In the line, with so many jobs before it; 0: it is next.
    case inLine(ahead: Int)
    /// Its tenant runs as many jobs as it may. It has no place in the line; so many of the tenant's own are let in before it.
    case heldByTenantLimit(ownAhead: Int)
    /// Its time comes then, in Unix milliseconds: a delayed submit, or a retry in its back-off.
    case notDue(atMs: Int)
}

/// What is asked about a waiting job.
public struct PlaceQuestion: Sendable, Hashable {
    public let job: JobID
    public let queue: String
    public let owner: Owner

    public init(job: JobID, queue: String, owner: Owner) {
        self.job = job
        self.queue = queue
        self.owner = owner
    }
}

extension JobStore {
    /// Where each of the jobs waits, in one round trip, two where some are not in the line; nil for a job that does not wait:
    /// running, ended, absent, or in no queue.
    public func places(_ questions: [PlaceQuestion]) async throws(StoreError) -> [JobPlace?] {
        var places = [JobPlace?](repeating: nil, count: questions.count)
        var asked = questions.indices.filter { questions[$0].queue != Keys.heldQueue }
        let ranks = try await pipeline(
            asked.map { rank(of: questions[$0], in: keys.queue(questions[$0].queue, .ready, partition: partition(of: questions[$0]))) }
        )
        for (index, reply) in zip(asked, ranks) { places[index] = reply.int.map { .inLine(ahead: $0) } }
        asked.removeAll { places[$0] != nil }
        let others = try await pipeline(
            asked.flatMap { index -> [[RedisArgument]] in
                let question = questions[index]
                let partition = partition(of: question)
                return [
                    rank(of: question, in: keys.parked(question.owner.tenant, of: question.queue, partition: partition)),
                    ["ZSCORE", .string(keys.queue(question.queue, .delayed, partition: partition)), .string(question.job.text)],
                ]
            }
        )
        for (slot, index) in asked.enumerated() {
            if let ahead = others[2 * slot].int {
                places[index] = .heldByTenantLimit(ownAhead: ahead)
            } else if let due = others[2 * slot + 1].string.flatMap(Double.init), due.magnitude < 1e15 {
                places[index] = .notDue(atMs: Int(due))
            }
        }
        return places
    }

    private func partition(of question: PlaceQuestion) -> Int { keys.partition(of: question.job) }

    private func rank(of question: PlaceQuestion, in key: String) -> [RedisArgument] {
        ["ZRANK", .string(key), .string(question.job.text)]
    }

    /// The queue of each job, in one round trip; nil for absent jobs.
    public func queueNames(of jobs: [JobID]) async throws(StoreError) -> [String?] {
        try await pipeline(jobs.map { ["HGET", .string(keys.job($0)), "queue"] }).map(\.string)
    }
}
