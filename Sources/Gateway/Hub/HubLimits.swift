public import NIOCore

/// Every bound of the live half of the gateway: what is kept, how much at once, and for how long.
public struct HubLimits: Sendable {
    // MARK: Connections
    /// Live connections of one gateway; one more is asked to come back later.
    public var sessions = 50_000
    /// Jobs one WebSocket may watch, over all its messages.
    public var watchesPerWebSocket = 256
    /// Jobs one event stream may watch.
    public var watchesPerEventStream = 32
    /// Different jobs watched at a time: each costs a subscription and an entry.
    public var jobs = 200_000
    /// Long-polls that wait at a time.
    public var pollWaiters = 10_000
    /// Longest wait of one long-poll.
    public var pollWait = TimeAmount.seconds(30)
    /// How much longer it waits for Redis when nothing was read in its own time.
    public var pollGrace = TimeAmount.seconds(3)

    // MARK: One connection
    /// Longest message a WebSocket client may send.
    public var clientMessageBytes = 8 * 1024
    /// Malformed or refused messages before a WebSocket is closed with 4400.
    public var clientErrors = 16
    /// Messages a WebSocket client may send in one heartbeat tick before it is closed with 4429.
    public var clientMessagesPerTick = 600
    /// Bytes an event stream's client may send: it has nothing to say after its request.
    public var strayBytes = 64 * 1024
    /// Bytes in a socket's queue above which its watchers conflate, and below which they go on.
    public var outboundHighWater = 64 * 1024
    public var outboundLowWater = 32 * 1024
    /// Milestones kept for one watcher of a stalled socket; one more and it is caught up from Redis instead.
    public var milestonesPerWatcher = 64
    /// A receive buffer fits any message a well-meant client sends, and is the largest thing an idle connection owns.
    public var receiveBufferBytes = 512
    public var readsPerTurn = 1

    // MARK: Work per turn
    /// Bytes for an idle socket go around NIO, see `DirectSend`. To be off when anything between a session and its socket
    /// changes bytes, as TLS does.
    public var sendsDirectly = true
    /// Sockets written before other events of the loop get their turn, so that a big room cannot starve accepts.
    public var writesPerTurn = 256
    /// Pause between two turns. NIO runs ready tasks until none is left, so only a timer lets it look at its sockets.
    public var turnPause = TimeAmount.microseconds(20)
    /// Bytes of one joined write.
    public var joinedWriteBytes = 16 * 1024
    /// Items for one event loop that is still busy before states among them are conflated.
    public var outboxItems = 4096
    /// Milestones of one job in that queue before its watchers are caught up from Redis instead.
    public var outboxMilestones = 256
    /// Events of one job kept while a gap before them is filled.
    public var heldEvents = 128

    // MARK: Redis
    /// Jobs per pipelined read, and reads at a time: a storm of watchers queues here, not in Redis.
    public var jobsPerRead = 256
    public var concurrentReads = 4
    public var concurrentMilestoneReads = 64
    /// Channels per SUBSCRIBE.
    public var channelsPerSubscribe = 512
    /// A watched job that was silent for longer is read again: the bound on what a lost message can cost.
    public var staleness = TimeAmount.seconds(5)
    /// Every so many of these comparisons is of the whole state: after a failover nobody noticed, another history may have
    /// reached the same seq.
    public var verificationsPerHead = 6
    /// A state known for less than this is served to a new watcher without a read.
    public var freshness = TimeAmount.seconds(1)
    /// Stays subscribed this long after the last watcher left: pages reload.
    public var linger = TimeAmount.seconds(2)
    public var lingeringJobs = 10_000
    /// A read that failed is repeated after this, doubling up to the maximum.
    public var retryDelay = TimeAmount.milliseconds(100)
    public var maximumRetryDelay = TimeAmount.seconds(5)
    /// A subscription without acknowledgement for this long no longer holds up the first snapshot.
    public var subscribePatience = TimeAmount.seconds(2)
    /// Places in line read per tick (one second).
    public var positionsPerTick = 256

    // MARK: Forecasts of waits
    /// Pause between two looks at a queue's forecast, which is made at most once a second.
    public var waitPause = Duration.milliseconds(900)
    /// A forecast that is older is not shown.
    public var waitFrameAge = Duration.seconds(8)
    /// Queues of which forecasts are remembered.
    public var waitQueues = 256
    /// Pipelines of one queue whose learned durations are read, and for how long they are good.
    public var waitPipelines = 64
    public var waitStatisticsAge = Duration.seconds(20)
    /// Forecasts of at least so many milliseconds teach the interval.
    public var waitWorthLearning = 3000.0
    /// A wait that goes down as it should is told again after a twentieth of itself, within these bounds.
    public var waitRepeat = 1000...10_000

    // MARK: Waiting and heartbeats
    /// How long a watch without a cursor waits for its job to appear.
    public var watchUnknown = TimeAmount.seconds(60)
    /// Heartbeat tick of a connection: an event stream's comment; every second one a WebSocket's ping.
    public var heartbeat = TimeAmount.seconds(15)
    /// A WebSocket from which no byte came for this long is dead.
    public var silence = TimeAmount.seconds(60)
    /// A socket that accepted nothing for this long while bytes wait is closed.
    public var writeDeadline = TimeAmount.seconds(60)
    /// How long a WebSocket's peer may take to answer a close.
    public var closeGrace = TimeAmount.seconds(2)
    /// When a refused event stream should come back.
    public var retryAfterOverload = TimeAmount.seconds(10)
    /// How long a canary may take through Redis and back.
    public var canaryTimeout = TimeAmount.seconds(2)

    public init() {}
}
