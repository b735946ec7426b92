import JobStore
import NIOCore
import ProgressCore

/// Places in line, and how long the jobs there wait: read once a second for jobs that wait and have watchers, told when they
/// changed.
extension HubIntake {
    /// Remembers jobs that wait in a queue and have watchers.
    func noteLine(of entry: JobEntry) {
        guard entry.feed.newest?.phase == .queued else {
            entry.told = nil
            entry.placeEvent = nil
            return
        }
        guard !entry.isInLine, entry.queueName != Keys.heldQueue else { return }
        entry.isInLine = true
        inLine.append(entry)
    }

    func readPlaces() {
        inLine.removeAll { entry in
            let stays =
                !entry.isRemoved && entry.feed.newest?.phase == .queued && entry.openCount > 0 && entry.queueName != Keys.heldQueue
            if !stays { entry.isInLine = false }
            return !stays
        }
        guard !inLine.isEmpty, !isReadingPlaces, let source, isLinkUp else { return }
        let batch = Array(inLine.prefix(limits.positionsPerTick))
        inLine = Array(inLine.dropFirst(batch.count)) + batch
        isReadingPlaces = true
        let unnamed = batch.filter { $0.queueName == nil }
        let names =
            unnamed.isEmpty ? eventLoop.makeSucceededFuture([]) : source.queueNames(unnamed.map(\.job)).hop(to: eventLoop)
        names.assumeIsolated().whenComplete { [self] result in
            guard case .success(let found) = result else {
                isReadingPlaces = false
                return
            }
            for (entry, name) in zip(unnamed, found) { entry.queueName = name }
            readPlaces(of: batch)
        }
    }

    private func readPlaces(of batch: [JobEntry]) {
        guard let source else { return }
        var asked: [JobEntry] = []
        var questions: [PlaceQuestion] = []
        for entry in batch {
            guard let queue = entry.queueName, queue != Keys.heldQueue, let owner = entry.owner else { continue }
            asked.append(entry)
            questions.append(PlaceQuestion(job: entry.job, queue: queue, owner: owner))
        }
        let all = questions
        let queues = Set(all.map(\.queue)).sorted()
        // The places after the forecast: a place that has moved on since then is nearer the truth than the other way round.
        source.waits(queues).flatMap { frames in source.places(all).map { (frames, $0) } }
            .hop(to: eventLoop).assumeIsolated().whenComplete { [self] result in
                isReadingPlaces = false
                guard case .success((let frames, let places)) = result else { return }
                let frame = Dictionary(uniqueKeysWithValues: zip(queues, frames))
                for (entry, place) in zip(asked, places) where !entry.isRemoved {
                    guard let place, let queue = entry.queueName, entry.feed.newest?.phase == .queued else { continue }
                    let outlook = WaitFrame.outlook(frame[queue] ?? nil, at: place, partition: source.partition(of: entry.job))
                    tell(place, outlook, to: entry)
                }
                flush()
            }
    }

    private func tell(_ place: JobPlace, _ outlook: WaitOutlook?, to entry: JobEntry) {
        let news = ToldPlace(place: place, outlook: outlook, at: eventLoop.now)
        if let told = entry.told, !news.isNews(after: told, repeatMs: limits.waitRepeat) { return }
        entry.told = news
        let body = EventWriter.queue(job: entry.job, place: place, outlook: outlook, atMs: WallClock.nowMs())
        let event = OutboundEvent(kind: .queue, seq: 0, phase: .queued, body: body, for: entry.interest)
        entry.placeEvent = event
        forward(event, for: entry)
    }
}

/// What the watchers of a waiting job were told last.
struct ToldPlace {
    var place: JobPlace
    var outlook: WaitOutlook?
    var at: NIODeadline

    /// Clients count a wait down by themselves: it is told again when it goes otherwise, or has not been told for a while.
    func isNews(after told: ToldPlace, repeatMs: ClosedRange<Int>) -> Bool {
        guard place == told.place else { return true }
        guard case .wait(let ms, _, _) = outlook, case .wait(let before, _, _) = told.outlook else { return outlook != told.outlook }
        let passed = Int((at - told.at).nanoseconds / 1_000_000)
        // A second after the last, all the same: ticks are not that exact.
        if passed + 100 >= min(max(ms / 20, repeatMs.lowerBound), repeatMs.upperBound) { return ms != before }
        return abs(ms - max(0, before - passed)) > max(1000, ms / 10)
    }
}
