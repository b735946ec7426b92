import JobStore
import NIOCore
import NIOHTTP1
import NIOPosix
import ProgressCore
import Telemetry
import TestSupport
import Testing
import WebSocketWire

@testable import Gateway

/// What a socket that takes nothing costs and how it ends, on real sockets with short limits.
struct StalledSocketTests {
    /// Waits for a request head, then becomes a session, as the HTTP handlers do.
    private final class Doorman: ChannelInboundHandler, RemovableChannelHandler {
        typealias InboundIn = ByteBuffer
        private let hub: Hub
        private var text = ""

        init(hub: Hub) { self.hub = hub }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            text += String(buffer: unwrapInboundIn(data))
            guard text.hasSuffix("\r\n\r\n"), let line = text.split(separator: "\r\n").first(where: { $0.hasPrefix("sec-websocket-key: ") })
            else { return }
            var head = HTTPRequestHead(version: .http1_1, method: .GET, uri: "/v1/ws")
            head.headers.add(name: "sec-websocket-key", value: String(line.dropFirst("sec-websocket-key: ".count)))
            let session = WebSocketSession(hub: hub, principal: .anonymous, requestHead: head, connectionID: "c")
            let operations = context.pipeline.syncOperations
            operations.removeHandler(context: context, promise: nil)
            try? operations.addHandler(session)
        }
    }

    @Test(.timeLimit(.minutes(5)))
    func isClosedAtTheWriteDeadlineAndNotBefore() async throws {
        let redis = try await RedisServer.start()
        defer { redis.kill() }
        var limits = HubLimits()
        limits.heartbeat = .milliseconds(300)
        limits.writeDeadline = .milliseconds(900)
        limits.silence = .hours(1)
        try await withHub(on: redis, limits: limits) { hub, store in
            let server = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Doorman(hub: hub)) }
                }
                .bind(host: "127.0.0.1", port: 0).get()
            let port = server.localAddress?.port ?? 0
            let job = HubWorld.job("stalled")
            _ = try await store.submit(JobSubmission(id: job, queue: "gpu", pipeline: "relief", owner: .anonymous, paramsJSON: "{}"))
            let reader = try await WebSocketClient.connect(port: port)
            let stalled = try await WebSocketClient.connect(port: port, receiveBuffer: 4096)
            for client in [reader, stalled] { try await client.watch([job.text]) }
            try await stalled.setReading(false)
            guard case .job(let claim) = try await store.claim(queue: "gpu", worker: "w", nonce: "n") else {
                throw TestSupportError(.process, "nothing to claim")
            }
            var state = ProgressState(phase: .generating)
            state.message = String(repeating: "m", count: 500)
            var write = 0
            // Bytes wait in the gateway for good once the kernel's buffers are full.
            try await eventually(within: .seconds(30), "the stalled socket is closed") {
                try await withThrowingTaskGroup(of: Void.self) { tasks in
                    for _ in 0..<200 {
                        write += 1
                        let (state, number) = (state, write)
                        tasks.addTask { _ = try await store.advance(claim.lease, write: number, to: state) }
                    }
                    try await tasks.waitForAll()
                }
                return hub.sessionCount == 1
            }
            #expect(hub.metrics.stalledSockets.value == 1)
            #expect(!reader.isClosed)
            _ = try await store.finish(claim.lease, as: .complete, resultJSON: "{}", stagesMs: [])
            _ = try await reader.next(within: .seconds(20)) { $0.isTerminal }
            let seqs = reader.events(of: job.text).compactMap(\.seq)
            #expect(zip(seqs, seqs.dropFirst()).allSatisfy { $0 < $1 })
            await reader.close()
            try await server.close()
        }
    }
}
