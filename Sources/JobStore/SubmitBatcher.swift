import NIOCore
import ProgressCore
import RedisLink
import Synchronization

/// Group commit: submits that come while others of their queue and partition are under way go together in one call of the script.
///
/// A submit that finds nothing under way is sent at once. What a call costs Redis apart from its jobs (the call itself, the clock,
/// the queue's settings, the tenant, the wake-up) is half of a lone submit, and is paid once for all that go together.
/// Everything but waiting happens on the event loop of the first connection, and in the order of the calls.
final class SubmitBatcher: Sendable {
    /// One submit on its way.
    struct Entry: Sendable {
        let id: JobID
        let params: String
        /// What jobs that are alike have in common: five texts, then names and values.
        let common: [RedisArgument]
        /// Goes in a call of its own: groups and their children depend on what another key says.
        let isAlone: Bool
        /// About what it adds to a call.
        let bytes: Int
        let deadline: NIODeadline
        let ticket: SubmitTicket

        static let commonTexts = 5
        /// About what a job weighs without its params and plan.
        static let overheadBytes = 256
    }

    /// Jobs that a call may have in common: the script counts on one queue and one hash tag.
    struct Place: Hashable, Sendable {
        let queue: String
        let partition: Int
    }

    private struct Line {
        var waiting = CircularBuffer<Entry>()
        var underWay = 0
        /// A look at the line is on its way to the loop.
        var isDue = false
    }

    private struct State {
        var lines: [Place: Line] = [:]
        var count = 0
        var bytes = 0

        /// A line that nobody needs is forgotten: names of queues come from outside.
        mutating func put(_ line: Line, _ place: Place) {
            if line.underWay > 0 || !line.waiting.isEmpty || line.isDue { lines[place] = line }
        }

        /// The next ones that may go together, and those whose time was up before. What waits is shared among the calls.
        mutating func take(from line: inout Line, _ now: NIODeadline) -> (batch: [Entry], late: [Entry]) {
            let share = (line.waiting.count + StoreLimits.submitCallsUnderWay - 1) / StoreLimits.submitCallsUnderWay
            let most = min(StoreLimits.jobsPerSubmit, max(StoreLimits.jobsWorthACall, share))
            var (batch, late, sum) = ([Entry](), [Entry](), 0)
            while let next = line.waiting.first, batch.count < most {
                if let first = batch.first, first.isAlone || next.isAlone || sum + next.bytes > StoreLimits.submitBytes { break }
                line.waiting.removeFirst()
                count -= 1
                bytes -= next.bytes
                if next.deadline <= now {
                    late.append(next)
                } else if next.ticket.board() {
                    batch.append(next)
                    sum += next.bytes
                }
            }
            return (batch, late)
        }
    }

    private let redis: RedisClient
    private let keys: Keys
    private let verb: RedisArgument
    private let hasWakeKey: Bool
    private let state = Mutex(State())

    init(redis: RedisClient, keys: Keys, settings: StoreSettings) {
        self.redis = redis
        self.keys = keys
        verb = settings.publishVerb
        hasWakeKey = settings.reachesWakeLists(keys)
    }

    /// Submits that wait for the calls before them.
    var waiting: Int { state.withLock { $0.count } }

    /// Puts a submit in the line of its place; its ticket gets the answer.
    func add(_ entry: Entry, to place: Place) throws(StoreError) {
        let isFull = state.withLock { state in
            guard state.count < StoreLimits.waitingSubmits, state.bytes + entry.bytes <= StoreLimits.waitingSubmitBytes else { return true }
            state.count += 1
            state.bytes += entry.bytes
            var line = state.lines.removeValue(forKey: place) ?? Line()
            line.waiting.append(entry)
            look(at: &line, place)
            state.put(line, place)
            return false
        }
        if isFull { throw StoreError(.unavailable, "\(StoreLimits.waitingSubmits) submits wait already: Redis is too slow or gone") }
    }

    /// At the end of the loop's turn, so that those who have just been answered and submit again come along.
    private func look(at line: inout Line, _ place: Place) {
        guard !line.isDue, !line.waiting.isEmpty, line.underWay < StoreLimits.submitCallsUnderWay else { return }
        line.isDue = true
        redis.eventLoop.execute { self.sendNext(place) }
    }

    private func sendNext(_ place: Place) {
        let now = NIODeadline.now()
        let (batch, late) = state.withLock { state -> ([Entry], [Entry]) in
            guard var line = state.lines.removeValue(forKey: place) else { return ([], []) }
            line.isDue = false
            let taken = state.take(from: &line, now)
            if !taken.batch.isEmpty { line.underWay += 1 }
            look(at: &line, place)
            state.put(line, place)
            return taken
        }
        for entry in late { entry.ticket.complete(.failure(Self.overdue)) }
        if !batch.isEmpty { send(batch, place) }
    }

    private static let overdue = StoreError(.unavailable, "the time was up before the job could be sent: Redis is too slow or gone")

    // MARK: A call

    private func call(_ jobs: ArraySlice<Entry>, _ place: Place) -> EventLoopFuture<RESPValue> {
        var arguments: [RedisArgument] = [verb, .string(place.queue)]
        var rest = jobs
        while let first = rest.first {
            let alike = rest.prefix { $0.common == first.common }
            arguments += [.int(alike.count), .int(first.common.count - Entry.commonTexts)]
            arguments += first.common
            for job in alike { arguments += [.string(job.id.text), .string(job.params)] }
            rest = rest.dropFirst(alike.count)
        }
        let wake = hasWakeKey ? [keys.wake(place.queue)] : []
        return redis.evaluateInOrder(Scripts.submit, keys: jobs.prefix(1).map { keys.job($0.id) } + wake, arguments: arguments)
    }

    private func send(_ batch: [Entry], _ place: Place) {
        call(batch[...], place).whenComplete { result in
            switch result {
            case .success(let reply):
                let answers = reply.array ?? []
                for (index, job) in batch.enumerated() {
                    job.ticket.complete(answers.count == batch.count ? .success(answers[index]) : .failure(Self.unexpected))
                }
            case .failure(let error):
                let error = RedisError.of(error)
                // Perhaps for the sake of one job only: each is told its own fate. Ids make the repetition safe.
                if batch.count > 1, error.isOfTheScript { return self.sendAlone(batch[...], place) }
                for job in batch { job.ticket.complete(.failure(StoreError(error))) }
                if error.isLasting { self.giveUp(place, error) }
            }
            self.leave(place)
        }
    }

    private static let unexpected = StoreError(.corrupt, "script submit answered something that is not one answer for each job")

    private func sendAlone(_ batch: ArraySlice<Entry>, _ place: Place) {
        guard let job = batch.first else { return leave(place) }
        call(batch.prefix(1), place).whenComplete { result in
            switch result {
            case .success(let reply):
                job.ticket.complete(reply.array?.first.map { .success($0) } ?? .failure(Self.unexpected))
            case .failure(let error):
                let error = RedisError.of(error)
                guard error.isOfTheScript else {
                    for job in batch { job.ticket.complete(.failure(StoreError(error))) }
                    return self.leave(place)
                }
                job.ticket.complete(.failure(StoreError(error)))
            }
            self.sendAlone(batch.dropFirst(), place)
        }
    }

    /// Redis is away: what waits is told so now, and not one call after another.
    private func giveUp(_ place: Place, _ error: RedisError) {
        let waiting = state.withLock { state -> CircularBuffer<Entry> in
            guard var line = state.lines.removeValue(forKey: place) else { return [] }
            let waiting = line.waiting
            line.waiting = []
            state.put(line, place)
            state.count -= waiting.count
            state.bytes -= waiting.reduce(0) { $0 + $1.bytes }
            return waiting
        }
        for job in waiting { job.ticket.complete(.failure(StoreError(.unavailable, error.message))) }
    }

    private func leave(_ place: Place) {
        state.withLock { state in
            guard var line = state.lines.removeValue(forKey: place) else { return }
            line.underWay -= 1
            look(at: &line, place)
            state.put(line, place)
        }
    }
}

extension RedisError {
    fileprivate static func of(_ error: any Error) -> RedisError {
        error as? RedisError ?? RedisError(.connectionLost, "\(error)", mayHaveRun: true)
    }

    /// The script ran and failed: with other jobs it may not.
    fileprivate var isOfTheScript: Bool { code == .server || code == .wrongType || code == .outOfMemory }

    /// Who waits would wait in vain. (A connection that was lost may be back by then.)
    fileprivate var isLasting: Bool {
        code == .unreachable || code == .timeout || code == .closed || code == .authentication || code == .invalidConfiguration
    }
}
