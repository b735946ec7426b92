public import NIOCore

/// Every bound of this room: sizes in bytes, times as `Duration` or `TimeAmount`, each with its reason.
///
/// The values are properties so that a test can make them small; production uses the defaults.
public struct RedisLimits: Sendable {
    // MARK: Commands

    /// Arguments of one command. Redis itself refuses more than 1 048 576.
    public var commandArgumentsMax = 65_536
    /// Bytes of one encoded command: a preview image is the largest thing anybody sends.
    public var commandBytesMax = 32 << 20
    /// Commands of all connections of one client that are not answered yet; one more is `.tooManyPending`.
    public var pendingCommandsMax = 65_536
    /// Encoded bytes of those commands.
    public var pendingBytesMax = 128 << 20
    /// Small commands are joined up to this size before they are handed to the socket; larger ones travel alone, uncopied.
    public var coalescedWriteBytes = 64 << 10

    // MARK: Replies

    /// Memory of one reply of a command, and of its unparsed part.
    public var replyBytesMax = 64 << 20
    /// The same for the subscription connection, whose messages are small events.
    public var pushBytesMax = 4 << 20
    /// Elements of one array in a reply.
    public var arrayElementsMax = 1 << 20
    /// hiredis moves its buffer once per consumed KiB, so large feeds are slower (measured: 64 KiB is fine, 256 KiB is not).
    public var feedBytes = 64 << 10
    /// Messages of one feed share one buffer: the smaller the feed, the less a kept payload keeps alive.
    public var pushFeedBytes = 16 << 10
    /// Longer texts of server errors are cut.
    public var errorTextMax = 512

    // MARK: Connections

    /// First step of the reconnect back-off, doubled per failure, with full jitter.
    public var reconnectDelayBase = TimeAmount.milliseconds(50)
    public var reconnectDelayMax = TimeAmount.seconds(2)
    /// A connection that lived this long was a good one: the next back-off starts from the base again.
    public var stableConnection = TimeAmount.seconds(2)
    /// How long a command waits for a connection once an attempt to connect has failed: "submit fails fast".
    /// Before the first attempt has failed, it waits for `connectTimeout` of the configuration.
    public var connectionWaitMax = TimeAmount.milliseconds(250)
    /// How often waiting commands are looked at for expiry.
    public var connectionWaitTick = TimeAmount.milliseconds(10)
    /// Connections for blocking commands (`BLPOP`): one per caller that blocks at the same time.
    public var blockingConnectionsMax = 256
    /// What a blocking command may take on top of its own timeout before the connection counts as dead.
    public var blockingSlack = Duration.seconds(2)

    // MARK: Subscriptions

    /// Channels in one `SUBSCRIBE`: some 40 kB, so that Redis is never held up by one command.
    public var channelsPerCommand = 512
    /// Channels sent and not yet acknowledged: keeps the acknowledgements far below the server's output buffer limit
    /// for subscribers (8 MB for 60 s).
    public var unacknowledgedChannelsMax = 8_192
    /// Channels of one subscriber.
    public var channelsMax = 1_000_000
    /// Bytes of a channel's name.
    public var channelNameBytesMax = 1_024
    /// A `subscribe` that the server has not acknowledged by then fails (it may have waited through a reconnect).
    public var subscribeTimeout = TimeAmount.seconds(10)
    /// Silence after which the subscription connection is asked for a sign of life, and how long that may take.
    public var idleBeforeProbe = TimeAmount.seconds(5)
    public var probeTimeout = TimeAmount.seconds(3)
    /// How often silence and overdue subscriptions are looked at.
    public var watchTick = TimeAmount.milliseconds(500)
    /// Probes under way on one connection.
    public var probesMax = 1_024

    public init() {}
}
