import NIOCore
import Synchronization
import Telemetry

/// The open connections, streams included: counted against the limit, and told when the gateway stops.
final class ConnectionRegistry: Sendable {
    private let channels = Mutex<[ObjectIdentifier: any Channel]>([:])
    private let limit: Int
    private let metrics: HTTPMetrics

    init(limit: Int, metrics: HTTPMetrics) {
        self.limit = limit
        self.metrics = metrics
    }

    var count: Int { channels.withLock { $0.count } }

    /// Takes a new connection in until it closes; false when there are too many.
    func admit(_ channel: any Channel) -> Bool {
        let id = ObjectIdentifier(channel)
        let isAdmitted = channels.withLock { channels in
            guard channels.count < limit else { return false }
            channels[id] = channel
            return true
        }
        guard isAdmitted else {
            metrics.refused.increment()
            return false
        }
        metrics.accepted.increment()
        metrics.connections.add(1)
        channel.closeFuture.whenComplete { [self] _ in
            channels.withLock { _ = $0.removeValue(forKey: id) }
            metrics.connections.add(-1)
        }
        return true
    }

    /// Connections that wait for a request are closed, those with one in progress behind its answer. Streams have the hub's word.
    func quiesce() {
        for channel in channels.withLock({ Array($0.values) }) {
            channel.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent())
        }
    }

    func closeAll() {
        for channel in channels.withLock({ Array($0.values) }) { channel.close(promise: nil) }
    }
}
