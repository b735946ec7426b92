import NIOCore
import NIOPosix
import RedisLink
import TestSupport
import Testing

/// Subscriptions against a real Redis, with its faults.
@Suite(.timeLimit(.minutes(5)))
struct RedisSubscriberTests {
    private struct Bench: Sendable {
        let server: RedisServer
        let client: RedisClient
        let subscriber: RedisSubscriber
        let delegate: RecordingDelegate

        func publish(_ channel: String, _ text: String) async throws -> Int? {
            try await client.send(["PUBLISH", .string(channel), .string(text)]).int
        }
    }

    private func withSubscriber(
        _ options: RedisServer.Options = .init(),
        adjust: ((inout RedisConfiguration) -> Void)? = nil,
        _ body: (Bench) async throws -> Void
    ) async throws {
        let server = try await RedisServer.start(options)
        var configuration = server.configuration()
        adjust?(&configuration)
        let delegate = RecordingDelegate()
        let subscriber = RedisSubscriber(
            configuration: configuration,
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            logger: quietLogger(),
            delegate: delegate
        )
        try await withClient(server.configuration()) { client in
            let running = Task { try await subscriber.run() }
            let bench = Bench(server: server, client: client, subscriber: subscriber, delegate: delegate)
            do { try await body(bench) } catch { Issue.record(error) }
            running.cancel()
            try await running.value
        }
        #expect(!subscriber.isConnected)
        let late = await redisError { try await subscriber.subscribe(["x"]).get() }
        #expect(late?.code == .closed)
    }

    @Test(arguments: [true, false])
    func messagesArriveInOrderAfterTheAcknowledgement(overTCP: Bool) async throws {
        try await withSubscriber(.init(listensOnTCP: overTCP, password: "pw")) { bench in
            try await bench.subscriber.subscribe(["a", "b"]).get()
            #expect(bench.subscriber.isConnected)
            let receivers = try await bench.client.pipeline((0..<2_000).map { ["PUBLISH", $0 % 2 == 0 ? "a" : "b", .int($0)] })
            #expect(receivers.allSatisfy { $0.int == 1 })
            try await eventually { bench.delegate.messages.count == 2_000 }
            #expect(bench.delegate.messages == (0..<2_000).map { "\($0 % 2 == 0 ? "a" : "b")=\($0)" })
            #expect(bench.delegate.events.last == "read")
            #expect(!bench.delegate.events.contains("lost"))
        }
    }

    @Test func unsubscribedChannelsAreSilentAndResubscribedOnesAreNot() async throws {
        try await withSubscriber { bench in
            try await bench.subscriber.subscribe(["a", "b"]).get()
            bench.subscriber.unsubscribe(["a"])
            try await eventually { try await bench.publish("a", "1") == 0 }
            // Back and forth without waiting: the last wish wins.
            for _ in 0..<20 {
                _ = bench.subscriber.subscribe(["a"])
                bench.subscriber.unsubscribe(["a"])
            }
            try await bench.subscriber.subscribe(["a"]).get()
            let receivers = try await bench.publish("a", "2")
            #expect(receivers == 1)
            try await eventually { bench.delegate.messages.last == "a=2" }
            #expect(bench.delegate.messages.filter { $0 == "a=2" }.count == 1)
        }
    }

    @Test func twentyThousandChannelsAreSubscribedAndRestored() async throws {
        let patient = { (configuration: inout RedisConfiguration) in configuration.limits.subscribeTimeout = .seconds(40) }
        try await withSubscriber(adjust: patient) { bench in
            let channels = (0..<20_000).map { "headway:{0}:live:job-\($0)" }
            let waits = stride(from: 0, to: channels.count, by: 100).map { bench.subscriber.subscribe(Array(channels[$0..<$0 + 100])) }
            for wait in waits { try await wait.get() }
            let before = try await bench.client.send(["PUBSUB", "NUMSUB", .string(channels[0]), .string(channels[19_999])])
            #expect(before.array?.map(\.int) == [nil, 1, nil, 1])

            try await bench.server.cli("CLIENT", "KILL", "TYPE", "pubsub")
            try await eventually(within: .seconds(30)) { bench.delegate.events.contains("restored") }
            let replies = try await bench.client.pipeline(channels.map { ["PUBLISH", .string($0), "x"] }, timeout: .seconds(20))
            #expect(replies.allSatisfy { $0.int == 1 })
            try await eventually(within: .seconds(20)) { bench.delegate.messages.count == 20_000 }
        }
    }

    @Test func killedServerIsReportedAndSubscriptionsComeBack() async throws {
        try await withSubscriber { bench in
            try await bench.subscriber.subscribe(["a"]).get()
            bench.server.kill()
            try await eventually { bench.delegate.events.contains("lost") }
            #expect(!bench.subscriber.isConnected)
            // Wished for while Redis is away.
            let waiting = bench.subscriber.subscribe(["b"])
            #expect(await !bench.subscriber.probe(timeout: .seconds(1)))
            try await bench.server.start()
            try await waiting.get()
            try await eventually { bench.delegate.events.contains("restored") }
            for channel in ["a", "b"] {
                let receivers = try await bench.publish(channel, "new")
                #expect(receivers == 1)
            }
            try await eventually { bench.delegate.messages == ["a=new", "b=new"] }
            #expect(bench.delegate.events.filter { $0 == "lost" || $0 == "restored" } == ["lost", "restored"])
        }
    }

    @Test func frozenServerIsNoticedBySilence() async throws {
        let watchful = { (configuration: inout RedisConfiguration) in
            configuration.limits.idleBeforeProbe = .milliseconds(200)
            configuration.limits.probeTimeout = .milliseconds(200)
            configuration.limits.watchTick = .milliseconds(20)
            configuration.connectTimeout = .milliseconds(300)
        }
        try await withSubscriber(adjust: watchful) { bench in
            try await bench.subscriber.subscribe(["a"]).get()
            // Longer than idle time and probe together: an answering server keeps its connection.
            let start = ContinuousClock.now
            try await eventually { ContinuousClock.now - start > .seconds(1) }
            #expect(!bench.delegate.events.contains("lost"))
            bench.server.freeze()
            try await eventually { bench.delegate.events.contains("lost") }
            bench.server.thaw()
            try await eventually { bench.delegate.events.contains("restored") }
            let receivers = try await bench.publish("a", "x")
            #expect((receivers ?? 0) >= 1)
            try await eventually { bench.delegate.messages.contains("a=x") }
        }
    }

    @Test func probeMeasuresTheConnection() async throws {
        try await withSubscriber { bench in
            try await eventually { await bench.subscriber.probe(timeout: .seconds(1)) }
            try await bench.subscriber.subscribe(["a"]).get()
            #expect(await bench.subscriber.probe(timeout: .seconds(5)))
            bench.server.freeze()
            #expect(await !bench.subscriber.probe(timeout: .milliseconds(100)))
            bench.server.thaw()
            try await eventually { await bench.subscriber.probe(timeout: .seconds(1)) }
        }
    }

    @Test func subscriptionThatNobodyAcknowledgesFailsButStaysWanted() async throws {
        let hasty = { (configuration: inout RedisConfiguration) in
            configuration.limits.subscribeTimeout = .seconds(2)
            configuration.limits.watchTick = .milliseconds(20)
        }
        try await withSubscriber(adjust: hasty) { bench in
            try await eventually(within: .seconds(30)) { (try? await bench.subscriber.subscribe(["a"]).get()) != nil }
            bench.server.freeze()
            let error = await redisError { try await bench.subscriber.subscribe(["b"]).get() }
            #expect(error?.code == .timeout)
            bench.server.thaw()
            try await eventually { try await bench.publish("b", "x") == 1 }
        }
    }

    @Test func forbiddenChannelFailsAlone() async throws {
        try await withSubscriber { bench in
            try await bench.server.cli("ACL", "SETUSER", "default", "resetchannels", "&ok:*")
            try await bench.subscriber.subscribe(["ok:1"]).get()
            let error = await redisError { try await bench.subscriber.subscribe(["secret"]).get() }
            #expect(error?.code == .authentication)
            try await bench.subscriber.subscribe(["ok:2"]).get()
        }
    }

    @Test func wrongPasswordFailsSubscriptionsAtOnce() async throws {
        let mistaken = { (configuration: inout RedisConfiguration) in configuration.password = "wrong" }
        try await withSubscriber(.init(password: "right"), adjust: mistaken) { bench in
            let error = await redisError { try await bench.subscriber.subscribe(["a"]).get() }
            #expect(error?.code == .authentication)
        }
    }

    @Test(arguments: [[""], [String(repeating: "x", count: 2_000)]])
    func badNamesAreRefused(_ channels: [String]) async throws {
        try await withSubscriber { bench in
            let error = await redisError { try await bench.subscriber.subscribe(channels).get() }
            #expect(error?.code == .invalidConfiguration)
        }
    }

    @Test func largePayloadsPassAndTooLargeOnesReconnect() async throws {
        let narrow = { (configuration: inout RedisConfiguration) in configuration.limits.pushBytesMax = 1 << 20 }
        try await withSubscriber(adjust: narrow) { bench in
            try await bench.subscriber.subscribe(["a"]).get()
            _ = try await bench.publish("a", String(repeating: "L", count: 900_000))
            try await eventually { bench.delegate.messages.first?.count == 900_002 }
            _ = try await bench.publish("a", String(repeating: "L", count: 1_200_000))
            try await eventually { bench.delegate.events.contains("restored") }
            _ = try await bench.publish("a", "small")
            try await eventually { bench.delegate.messages.last == "a=small" }
        }
    }
}
