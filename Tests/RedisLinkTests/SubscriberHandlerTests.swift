import NIOCore
import NIOEmbedded
import Synchronization
import Testing

@testable import RedisLink

@Suite(.timeLimit(.minutes(5)))
struct SubscriberHandlerTests {
    private final class Owner: SubscriberHandlerOwner {
        var events: [String] = []
        func acknowledgedSubscribe(_ channel: String) { events.append("+\(channel)") }
        func acknowledgedUnsubscribe(_ channel: String) { events.append("-\(channel)") }
        func refused(_ channels: [String], _ error: RedisError) { events.append("!\(channels) \(error.code)") }
        func readComplete() {}
    }

    private final class Bench {
        let channel = EmbeddedChannel()
        let owner = Owner()
        let delegate = RecordingDelegate()
        let handler: SubscriberHandler

        init() throws {
            handler = SubscriberHandler(delegate: delegate, owner: owner, limits: RedisLimits())
            try channel.pipeline.syncOperations.addHandler(handler)
            try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 6379)).wait()
        }

        func receive(_ text: String) throws { try channel.writeInbound(ByteBuffer(string: text)) }
        func written() throws -> String {
            var result = ""
            while let buffer = try channel.readOutbound(as: ByteBuffer.self) { result += String(buffer: buffer) }
            return result
        }
    }

    private let ping = "*1\r\n$4\r\nPING\r\n"
    private let pong = "*2\r\n$4\r\npong\r\n$0\r\n\r\n"

    private func push(_ kind: String, _ channel: String, _ last: String) -> String {
        "*3\r\n$\(kind.utf8.count)\r\n\(kind)\r\n$\(channel.utf8.count)\r\n\(channel)\r\n\(last)\r\n"
    }

    @Test func answersAndMessagesFindTheirWay() throws {
        let bench = try Bench()
        bench.handler.send([.subscribe(["a", "b"]), .unsubscribe(["a"])])
        #expect(
            try bench.written() == "*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n$1\r\nb\r\n" + "*2\r\n$11\r\nUNSUBSCRIBE\r\n$1\r\na\r\n"
        )
        try bench.receive(push("subscribe", "a", ":1") + push("message", "a", "$2\r\nhi") + push("subscribe", "b", ":2"))
        try bench.receive(push("unsubscribe", "a", ":1"))
        #expect(bench.owner.events == ["+a", "+b", "-a"])
        #expect(bench.delegate.events == ["a=hi", "read", "read"])
        #expect(bench.channel.isActive)
    }

    @Test func refusalBelongsToItsCommand() throws {
        let bench = try Bench()
        bench.handler.send([.subscribe(["a", "b"]), .subscribe(["c"])])
        try bench.receive("-NOPERM this user has no permissions\r\n" + push("subscribe", "c", ":1"))
        #expect(bench.owner.events == [#"!["a", "b"] authentication"#, "+c"])
    }

    @Test func silenceIsProbedAndThenEndsTheConnection() throws {
        let bench = try Bench()
        let loop = bench.channel.embeddedEventLoop
        loop.advanceTime(by: .milliseconds(4_999))
        bench.handler.watch()
        #expect(try bench.written() == "")
        loop.advanceTime(by: .milliseconds(1))
        bench.handler.watch()
        #expect(try bench.written() == ping)
        loop.advanceTime(by: .seconds(1))
        try bench.receive(pong)
        bench.handler.watch()
        loop.advanceTime(by: .seconds(5))
        bench.handler.watch()
        #expect(try bench.written() == ping)
        loop.advanceTime(by: .milliseconds(2_999))
        bench.handler.watch()
        #expect(bench.channel.isActive)
        loop.advanceTime(by: .milliseconds(1))
        bench.handler.watch()
        #expect(!bench.channel.isActive)
        #expect(bench.handler.closeReason?.code == .timeout)
    }

    @Test func trafficIsASignOfLife() throws {
        let bench = try Bench()
        for _ in 0..<20 {
            bench.channel.embeddedEventLoop.advanceTime(by: .seconds(4))
            try bench.receive(push("message", "a", "$1\r\nx"))
            bench.handler.watch()
        }
        #expect(try bench.written() == "")
    }

    @Test func probesAreAnsweredInOrderOrEnd() throws {
        let bench = try Bench()
        let loop = bench.channel.embeddedEventLoop
        let promises = (0..<3).map { _ in loop.makePromise(of: Bool.self) }
        for (index, promise) in promises.enumerated() { bench.handler.probe(promise, timeout: .seconds(Int64(index + 1))) }
        #expect(try bench.written() == ping + ping + ping)
        loop.advanceTime(by: .milliseconds(1_500))
        // The first is overdue, its answer is its own and not that of the second.
        try bench.receive(pong + "+PONG\r\n")
        try bench.channel.close().wait()
        #expect(try promises.map { try $0.futureResult.wait() } == [false, true, false])
    }

    @Test(arguments: ["+OK\r\n", ":1\r\n", "*1\r\n$1\r\nx\r\n", "-ERR what\r\n", "?", "*3\r\n$9\r\nsubscribe\r\n$1\r\nz\r\n:1\r\n"])
    func uncalledForAnswersCloseTheConnection(_ text: String) throws {
        let bench = try Bench()
        try bench.receive(text)
        #expect(!bench.channel.isActive)
        #expect(bench.handler.closeReason?.code == .protocolViolation)
    }
}

/// Writes down what it is told, as text.
final class RecordingDelegate: RedisSubscriberDelegate {
    private let log = Mutex<[String]>([])

    var events: [String] { log.withLock { $0 } }
    var messages: [String] { events.filter { $0.contains("=") } }

    func redisMessage(channel: ByteBuffer, payload: ByteBuffer) {
        log.withLock { $0.append("\(String(buffer: channel))=\(String(buffer: payload))") }
    }
    func redisSubscriptionsLost() { log.withLock { $0.append("lost") } }
    func redisSubscriptionsRestored() { log.withLock { $0.append("restored") } }
    func redisReadComplete() { log.withLock { $0.append("read") } }
}
