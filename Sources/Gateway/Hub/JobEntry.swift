import JobStore
import NIOCore
import ProgressCore

/// Somebody who waits for a job's state to be read: a new watcher, one to be caught up, or a long-poll.
///
/// Owned by the intake's event loop.
final class Joiner {
    enum Kind {
        case watcher(Watcher, ShardLink)
        case poll(PollWaiter)
    }

    let kind: Kind
    /// Seq of what it has; nil: it has nothing and wants the present state.
    let since: Int?
    let principal: Principal
    /// The job belongs to somebody else, which must look like absence: it waits like one and is not looked at again.
    var isDenied = false
    /// Reads of the job sent before it came: what they say may be older than what it has.
    var readsBefore = 0
    /// It waits for the job to appear, until then.
    var deadline: NIODeadline?
    var isSettled = false

    init(kind: Kind, since: Int?, principal: Principal) {
        self.kind = kind
        self.since = since
        self.principal = principal
    }
}

/// The intake's end of a room on one shard. Owned by the intake's event loop.
final class ShardLink {
    let shard: Int
    let room: ShardRoom
    /// Watchers that were opened and have not left.
    var openCount = 0

    init(shard: Int, job: JobID) {
        self.shard = shard
        self.room = ShardRoom(job: job)
    }
}

/// Everything the intake knows of one watched job. Owned by the intake's event loop.
final class JobEntry {
    enum Subscription { case missing, requested, active }
    enum Reading { case idle, queued, active }

    let job: JobID
    let channel: String
    var feed = JobFeed()
    var owner: Owner?
    var subscription = Subscription.missing
    var subscribedAt: NIODeadline
    /// Encodings anybody here ever wanted.
    var interest: TransportSet = []
    var links: [ShardLink] = []
    var joiners: [Joiner] = []
    var pollers: [PollWaiter] = []

    var reading = Reading.idle
    /// Something came up during a read that it does not answer.
    var readsAgain = false
    var issuedAt = 0
    var readsSent = 0
    /// Milestones passed on while the list is being read.
    var captured: [OutboundEvent] = []
    var isCapturing = false

    /// The last time the newest state was known to be the newest.
    var heardAt: NIODeadline
    var isInWheel = false
    var verifications = 0
    var isLingering = false
    var isRemoved = false

    var queueName: String?
    var told: ToldPlace?
    var placeEvent: OutboundEvent?
    var isInLine = false

    init(job: JobID, channel: String, now: NIODeadline) {
        self.job = job
        self.channel = channel
        self.subscribedAt = now
        self.heardAt = now - .hours(24)
    }

    var openCount: Int { links.reduce(0) { $0 + $1.openCount } }
    /// Somebody was given `feed.newest` and counts on what follows.
    var isWatched: Bool { !pollers.isEmpty || links.contains { $0.openCount > 0 } }
    var isIdle: Bool { joiners.isEmpty && pollers.isEmpty && links.allSatisfy { $0.openCount == 0 } }
    var hasEnded: Bool { feed.newest?.phase.isTerminal ?? false }

    func link(to shard: Int) -> ShardLink {
        if let link = links.first(where: { $0.shard == shard }) { return link }
        let link = ShardLink(shard: shard, job: job)
        links.append(link)
        return link
    }
}
