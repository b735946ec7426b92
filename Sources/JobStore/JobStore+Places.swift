public import ProgressCore
import RedisLink

/// Where a waiting job stands.
public enum JobPlace: Sendable, Hashable {
    /// In the line, with so many jobs before it; 0: it is next.
    case inLine(ahead: Int)
    /// Its tenant runs as many jobs as it may. It has no place in the line; so many of the tenant's own are let in before it.
    case heldByTenantLimit(ownAhead: Int)
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
    /// Where each of the jobs waits, in one round trip, two where some are held; nil for a job that does not wait in a line:
    /// delayed, running, ended, absent, or in no queue.
    public func places(_ questions: [PlaceQuestion]) async throws(StoreError) -> [JobPlace?] {
        var places = [JobPlace?](repeating: nil, count: questions.count)
        var asked = questions.indices.filter { questions[$0].queue != Keys.heldQueue }
        let ranks = try await pipeline(
            asked.map { rank(of: questions[$0], in: keys.queue(questions[$0].queue, .ready, partition: partition(of: questions[$0]))) }
        )
        for (index, reply) in zip(asked, ranks) { places[index] = reply.int.map { .inLine(ahead: $0) } }
        asked.removeAll { places[$0] != nil }
        let parked = try await pipeline(
            asked.map { index in
                let question = questions[index]
                let key = keys.parked(question.owner.tenant, of: question.queue, partition: partition(of: question))
                return rank(of: question, in: key)
            }
        )
        for (index, reply) in zip(asked, parked) { places[index] = reply.int.map { .heldByTenantLimit(ownAhead: $0) } }
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
