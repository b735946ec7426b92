import JobStore
import Logging
import NIOCore
import NIOPosix
import ProgressCore
import RedisLink
import Telemetry
import TestSupport
import Testing

@testable import Gateway

/// Starting and leaving.
@Suite(.timeLimit(.minutes(5))) struct GatewayServerTests {
    /// Runs a server that cannot start and returns why. There is no Redis: it must not matter.
    private func refusal(_ configuration: GatewayConfiguration) async -> GatewayError? {
        let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
        let redis = RedisConfiguration(address: .unix(path: "/nowhere"))
        let group = MultiThreadedEventLoopGroup.singleton
        let store = JobStore(redis: RedisClient(configuration: redis, eventLoopGroup: group, logger: logger), keys: Keys())
        let server = GatewayServer(
            configuration: configuration,
            store: store,
            redis: redis,
            registry: MetricsRegistry(),
            group: group,
            logger: logger
        )
        var thrown: (any Error)?
        do { try await server.run() } catch { thrown = error }
        // Whoever waits for it learns the same.
        let waited = await #expect(throws: GatewayError.self) { try await server.waitUntilListening() }
        #expect(waited == thrown as? GatewayError)
        return thrown as? GatewayError
    }

    @Test func aPortThatIsTakenIsNamed() async throws {
        try await withTemporaryDirectory { directory in
            let holder = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton).bind(host: "127.0.0.1", port: 0).get()
            let port = try #require(holder.localAddress?.port)
            let error = try #require(await refusal(GatewayConfiguration(port: port, dataDirectory: directory)))
            #expect(error.code == .cannotListen && error.message.contains("\(port)") && error.message.contains("--listen"))
            try await holder.close()
        }
    }

    @Test(arguments: ["0.0.0.0", "::", "192.0.2.1", "example.org", "127.0.0.1.example.org", "127.1.2.3.4"])
    func anOpenDoorNeedsToBeWanted(_ host: String) async throws {
        try await withTemporaryDirectory { directory in
            let error = try #require(await refusal(GatewayConfiguration(host: host, port: 0, dataDirectory: directory)))
            #expect(error.code == .insecureListen && error.message.contains(host) && error.message.contains("--insecure"))
        }
    }

    @Test func addressesThatAreNotOursAreNamed() async throws {
        try await withTemporaryDirectory { directory in
            let configuration = GatewayConfiguration(host: "192.0.2.1", port: 0, dataDirectory: directory, isInsecure: true)
            let error = try #require(await refusal(configuration))
            #expect(error.code == .cannotListen && error.message.contains("192.0.2.1"))
        }
    }

    @Test func aDirectoryThatCannotBeUsedIsNamed() async throws {
        let error = try #require(await refusal(GatewayConfiguration(port: 0, dataDirectory: "/dev/null/data")))
        #expect(error.code == .invalidConfiguration && error.message.contains("/dev/null/data"))
    }

    @Test func anInsecureListenerTakesAnyHost() async throws {
        try await GatewayFixture.with(
            .init {
                $0.host = "0.0.0.0"
                $0.isInsecure = true
            }
        ) { fixture in
            let named = try await fixture.ask("GET", "/v1/queues", headers: [("Host", "gpu.example")])
            let foreign = try await fixture.ask("GET", "/v1/queues", headers: [("Origin", "https://evil.example")])
            #expect(named.status == 200 && foreign.status == 403)
        }
    }

    /// SIGTERM: watchers are told when to come back, an upload in progress is finished, idle connections go, nobody new comes in.
    @Test func leavingInGoodOrder() async throws {
        try await GatewayFixture.with(.init { $0.drainWindow = .milliseconds(400) }) { fixture in
            _ = try await fixture.submit("j")
            let idle = try await fixture.connect()
            #expect(try await idle.ask("GET", "/livez").status == 200)
            let watcher = try await fixture.connect()
            #expect(try await watcher.ask("GET", "/v1/jobs/j/events").status == 200)
            let uploading = try await fixture.connect()
            await uploading.send("POST /v1/uploads?name=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nabc")
            try await eventually("the upload") { try Disk.entries(fixture.dataDirectory + "/tmp").count == 1 }
            await fixture.stop()
            try await idle.waitUntilClosed()
            try await watcher.waitUntilClosed()
            #expect(String(decoding: watcher.unread, as: UTF8.self).contains("\nretry: "))
            #expect(!uploading.isClosed)
            await uploading.send("d")
            let answer = try await uploading.response()
            #expect(answer.status == 201 && answer.header("connection") == "close")
            await #expect(throws: (any Error).self) { try await fixture.connect() }
        }
    }

    @Test func aLongPollIsAnsweredWhileLeaving() async throws {
        try await GatewayFixture.with(.init { $0.drainWindow = .seconds(1) }) { fixture in
            let client = try await fixture.connect()
            #expect(try await client.ask("GET", "/livez").status == 200)
            let busy = try await fixture.connect()
            _ = try await fixture.submit("j")
            await busy.request("GET", "/v1/jobs/j?after=1&wait_ms=300")
            try await eventually("the wait") { try await fixture.redis.cli("PUBSUB", "CHANNELS").contains("live:j") }
            await fixture.stop()
            try await client.waitUntilClosed()
            let last = try await busy.response()
            #expect(last.status == 200 && last.header("connection") == "close")
            #expect(fixture.registry.exposition().contains("headway_gateway_draining 1\n"))
        }
    }
}
