import JobStore
import Logging
import NIOCore
import NIOEmbedded
import NIOHTTP1
import ProgressCore
import WebSocketWire

@testable import Gateway

/// A whole hub with its sessions, in memory, one thread, one clock.
final class HubWorld {
    let intakeLoop = EmbeddedEventLoop()
    let loops: [EmbeddedEventLoop]
    let redis: FakeRedis
    let hub: Hub
    private(set) var clients: [TestClient] = []

    init(seed: UInt64 = 1, loops count: Int = 2, limits: HubLimits = .init()) {
        let intakeLoop = intakeLoop
        // The first shard shares the intake's loop, as in a real process.
        loops = [intakeLoop] + (1..<max(1, count)).map { _ in EmbeddedEventLoop() }
        redis = FakeRedis(loop: intakeLoop, seed: seed)
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        hub = Hub(source: redis, intakeLoop: intakeLoop, loops: loops, limits: limits, logger: logger)
        redis.intake = hub.intake
        hub.start()
        settle()
    }

    deinit {
        for client in clients { client.leave() }
        settle()
        for shard in hub.shards {
            shard.stop()
        }
        hub.intake.stop()
    }

    /// Runs everything that is due now, on all loops, until nothing is.
    func settle() {
        for _ in 0..<8 {
            for loop in loops { loop.run() }
        }
    }

    func advance(ms: Int) {
        var rest = ms
        while rest > 0 {
            // Small steps, so that the loops' clocks stay together.
            let step = min(rest, 5)
            for loop in loops { loop.advanceTime(by: .milliseconds(Int64(step))) }
            settle()
            rest -= step
        }
        for client in clients { client.collect() }
    }

    func webSocket(on loop: Int = 0, principal: Principal = .anonymous) -> TestClient {
        var head = HTTPRequestHead(version: .http1_1, method: .GET, uri: "/v1/ws")
        head.headers.add(name: "sec-websocket-key", value: "dGhlIHNhbXBsZSBub25jZQ==")
        head.headers.add(name: "sec-websocket-protocol", value: "headway.v1.json")
        let session = WebSocketSession(hub: hub, principal: principal, requestHead: head, connectionID: "c\(clients.count)")
        return add(TestClient(session, on: loops[loop % loops.count], isWebSocket: true))
    }

    func eventStream(
        _ requests: [WatchRequest],
        isMulti: Bool = false,
        on loop: Int = 0,
        principal: Principal = .anonymous
    ) -> TestClient {
        let session = SSESession(
            hub: hub,
            principal: principal,
            requests: requests,
            isMulti: isMulti,
            connectionID: "c\(clients.count)"
        )
        return add(TestClient(session, on: loops[loop % loops.count], isWebSocket: false))
    }

    private func add(_ client: TestClient) -> TestClient {
        clients.append(client)
        settle()
        client.collect()
        return client
    }

    static func job(_ name: String) -> JobID {
        guard let job = JobID(name) else { preconditionFailure("\(name) is no job id") }
        return job
    }
}

/// The other end of one session: what a client has received so far.
final class TestClient {
    let channel: EmbeddedChannel
    let isWebSocket: Bool
    /// JSON texts, in order.
    private(set) var texts: [String] = []
    private(set) var closeCode: WebSocketCloseCode?
    private(set) var closeReason = ""
    private(set) var pings = 0
    private(set) var head = ""
    /// Of an event stream: every `id`, `retry` and comment line.
    private(set) var ids: [String] = []
    private(set) var retries: [Int] = []
    private(set) var comments = 0
    private var parser = WebSocketParser(role: .client, maximumMessageBytes: 1 << 20)
    private var stream: [UInt8] = []
    private var isUpgraded = false

    init(_ handler: any ChannelInboundHandler & RemovableChannelHandler, on loop: EmbeddedEventLoop, isWebSocket: Bool) {
        channel = EmbeddedChannel(loop: loop)
        self.isWebSocket = isWebSocket
        try? channel.pipeline.syncOperations.addHandler(handler)
        if let address = try? SocketAddress(ipAddress: "127.0.0.1", port: 1) { channel.connect(to: address, promise: nil) }
    }

    var isOpen: Bool { channel.isActive }

    func leave() {
        if channel.isActive { channel.close(promise: nil) }
        collect()
    }

    /// The socket stalls, or takes bytes again.
    var isReading: Bool {
        get { channel.isWritable }
        set {
            guard newValue != channel.isWritable else { return }
            channel.isWritable = newValue
            channel.pipeline.fireChannelWritabilityChanged()
        }
    }

    func send(_ text: String) { send(WebSocketFrame.make(.text, ByteBuffer(string: text), mask: 0x0102_0304)) }

    func send(_ bytes: ByteBuffer) { _ = try? channel.writeInbound(bytes) }

    func collect() {
        while let bytes = try? channel.readOutbound(as: ByteBuffer.self) { receive(bytes) }
    }

    private func receive(_ bytes: ByteBuffer) {
        var bytes = bytes
        if !isUpgraded {
            let all = Array(bytes.readableBytesView)
            guard let end = Self.firstIndex(of: "\r\n\r\n", in: all[...]) else { return }
            head = String(decoding: all[..<end], as: UTF8.self)
            bytes = ByteBuffer(bytes: all[(end + 4)...])
            isUpgraded = true
        }
        if isWebSocket { receiveFrames(bytes) } else { receiveStream(Array(bytes.readableBytesView)) }
    }

    private static func firstIndex(of mark: String, in bytes: ArraySlice<UInt8>) -> Int? {
        let mark = Array(mark.utf8)
        guard bytes.count >= mark.count else { return nil }
        return (bytes.startIndex...(bytes.endIndex - mark.count)).first { bytes[$0..<$0 + mark.count].elementsEqual(mark) }
    }

    private func receiveFrames(_ bytes: ByteBuffer) {
        parser.append(bytes)
        while let message = try? parser.next() {
            switch message {
            case .text(let text): texts.append(String(buffer: text))
            case .close(let code, let reason): (closeCode, closeReason) = (code, reason)
            case .ping: pings += 1
            case .binary, .pong: break
            }
        }
    }

    private func receiveStream(_ bytes: [UInt8]) {
        stream += bytes
        while let end = Self.firstIndex(of: "\n\n", in: stream[...]) {
            var data: [Substring] = []
            let block = String(decoding: stream[..<end], as: UTF8.self)
            for line in block.split(separator: "\n") {
                if line.hasPrefix("data: ") { data.append(line.dropFirst(6)) }
                if line.hasPrefix("id: ") { ids.append(String(line.dropFirst(4))) }
                if line.hasPrefix("retry: ") { retries.append(Int(line.dropFirst(7)) ?? -1) }
                if line.hasPrefix(":") { comments += 1 }
            }
            if !data.isEmpty { texts.append(data.joined(separator: "\n")) }
            stream.removeFirst(end + 2)
        }
    }

    // MARK: What it saw

    struct Event: Equatable {
        let job: String?
        let type: String
        let seq: Int?
        let phase: String?
        let json: JSONValue
    }

    var events: [Event] {
        texts.compactMap { text in
            guard let json = JSONValue(parsing: Array(text.utf8)), case .string(let type)? = json["type"] else { return nil }
            func string(_ name: String) -> String? { if case .string(let value)? = json[name] { value } else { nil } }
            func integer(_ name: String) -> Int? { if case .integer(let value)? = json[name] { value } else { nil } }
            return Event(job: string("job"), type: type, seq: integer("seq"), phase: string("phase"), json: json)
        }
    }

    func events(of job: JobID) -> [Event] { events.filter { $0.job == job.text } }
    func types(of job: JobID) -> [String] { events(of: job).map(\.type) }
    func seqs(of job: JobID) -> [Int] { events(of: job).filter { $0.type != "reset" }.compactMap(\.seq) }
}
