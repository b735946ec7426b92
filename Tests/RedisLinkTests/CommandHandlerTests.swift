import NIOCore
import NIOEmbedded
import Testing

@testable import RedisLink

/// The handler on a channel without a socket and with a clock that only the test moves.
@Suite(.timeLimit(.minutes(5)))
struct CommandHandlerTests {
    private final class Bench {
        let channel = EmbeddedChannel()
        let handler: CommandHandler
        let budget: PendingBudget
        var limits = RedisLimits()

        init(_ limits: RedisLimits = .init()) throws {
            handler = CommandHandler(limits: limits)
            budget = PendingBudget(limits: limits)
            try channel.pipeline.syncOperations.addHandler(handler)
            try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 6379)).wait()
        }

        deinit { _ = try? channel.finish() }

        func submission(_ text: String = "x", in timeout: TimeAmount = .seconds(3), replies: Int = 1) throws -> (Submission, Outcome) {
            let promise = channel.eventLoop.makePromise(of: RESPValue.self)
            let outcome = Outcome()
            promise.futureResult.assumeIsolated().whenComplete { outcome.value = $0 }
            let submission = Submission(
                bytes: ByteBuffer(string: text),
                replyCount: replies,
                deadline: channel.eventLoop.now + timeout,
                completion: .promise(promise),
                budget: budget
            )
            try budget.acquire(submission.cost)
            return (submission, outcome)
        }

        func send(_ text: String = "x", in timeout: TimeAmount = .seconds(3), replies: Int = 1) throws -> Outcome {
            let (submission, outcome) = try submission(text, in: timeout, replies: replies)
            #expect(handler.submit([submission]))
            return outcome
        }

        func receive(_ text: String) throws { try channel.writeInbound(ByteBuffer(string: text)) }

        func written() throws -> [String] {
            var result: [String] = []
            while let buffer = try channel.readOutbound(as: ByteBuffer.self) { result.append(String(buffer: buffer)) }
            return result
        }
    }

    private final class Outcome {
        var value: Result<RESPValue, any Error>?

        var reply: RESPValue? { try? value?.get() }
        var error: RedisError? {
            if case .failure(let error) = value { error as? RedisError } else { nil }
        }
    }

    @Test func repliesGoToTheCommandsInOrder() throws {
        let bench = try Bench()
        let outcomes = try (0..<50).map { _ in try bench.send() }
        try bench.receive((0..<50).map { ":\($0)\r\n" }.joined())
        #expect(outcomes.map { $0.reply?.int } == Array(0..<50))
        #expect(bench.handler.unanswered == 0)
        #expect(bench.budget.pendingCommands == 0)
    }

    @Test func severalRepliesOfOnePipelineStayTogether() throws {
        let bench = try Bench()
        let first = try bench.send(replies: 3)
        let second = try bench.send()
        try bench.receive(":1\r\n-ERR x\r\n")
        #expect(first.value == nil)
        try bench.receive(":3\r\n:4\r\n")
        #expect(first.reply == .array([.integer(1), .error("ERR x"), .integer(3)]))
        #expect(second.reply == .integer(4))
    }

    @Test func errorRepliesBecomeErrors() throws {
        let bench = try Bench()
        let outcome = try bench.send()
        try bench.receive("-OOM no\r\n")
        #expect(outcome.error?.code == .outOfMemory)
        #expect(bench.channel.isActive)
    }

    @Test func overdueCommandClosesTheConnectionAndFailsAll() throws {
        let bench = try Bench()
        let head = try bench.send(in: .seconds(3))
        let behind = try bench.send(in: .seconds(60))
        bench.channel.embeddedEventLoop.advanceTime(by: .milliseconds(2_999))
        #expect(bench.channel.isActive)
        bench.channel.embeddedEventLoop.advanceTime(by: .milliseconds(1))
        #expect(!bench.channel.isActive)
        #expect(head.error?.code == .timeout)
        #expect(head.error?.mayHaveRun == true)
        #expect(behind.error?.code == .connectionLost)
        #expect(behind.error?.mayHaveRun == true)
        #expect(bench.budget.pendingCommands == 0)
        let (late, _) = try bench.submission()
        #expect(!bench.handler.submit([late]))
    }

    @Test func deadlineFollowsTheOldestCommand() throws {
        let bench = try Bench()
        let loop = bench.channel.embeddedEventLoop
        let first = try bench.send(in: .seconds(3))
        loop.advanceTime(by: .seconds(2))
        let second = try bench.send(in: .seconds(3))
        try bench.receive("+OK\r\n")
        #expect(first.reply == .status("OK"))
        // The timer was armed for the first command; the second has until second 5.
        loop.advanceTime(by: .milliseconds(2_999))
        #expect(second.value == nil)
        loop.advanceTime(by: .milliseconds(1))
        #expect(second.error?.code == .timeout)
    }

    @Test func shorterDeadlineOfALaterCommandIsKept() throws {
        let bench = try Bench()
        let loop = bench.channel.embeddedEventLoop
        _ = try bench.send(in: .seconds(30))
        try bench.receive("+OK\r\n")
        let short = try bench.send(in: .seconds(1))
        loop.advanceTime(by: .seconds(1))
        #expect(short.error?.code == .timeout)
    }

    @Test func commandBehindAPatientOneFailsAloneAtItsOwnDeadline() throws {
        let bench = try Bench()
        let loop = bench.channel.embeddedEventLoop
        let patient = try bench.send(in: .seconds(30))
        let hasty = try bench.send(in: .seconds(1))
        let last = try bench.send(in: .seconds(30))
        loop.advanceTime(by: .seconds(1))
        #expect(hasty.error?.code == .timeout)
        #expect(hasty.error?.mayHaveRun == true)
        #expect(bench.channel.isActive)
        // Its late reply is its own.
        try bench.receive(":1\r\n:2\r\n:3\r\n")
        #expect(patient.reply == .integer(1))
        #expect(last.reply == .integer(3))
        #expect(bench.budget.pendingCommands == 0)
    }

    @Test func connectionWhoseOldestCommandWasGivenUpStillEnds() throws {
        let bench = try Bench()
        let loop = bench.channel.embeddedEventLoop
        let patient = try bench.send(in: .seconds(30))
        let hasty = try bench.send(in: .seconds(1))
        loop.advanceTime(by: .seconds(1))
        try bench.receive(":1\r\n")
        #expect(patient.reply == .integer(1))
        let next = try bench.send(in: .seconds(5))
        let after = try bench.send(in: .seconds(60))
        loop.advanceTime(by: .seconds(5))
        #expect(hasty.error?.code == .timeout)
        #expect(next.error?.code == .timeout)
        #expect(after.error?.code == .connectionLost)
        #expect(!bench.channel.isActive)
    }

    @Test func commandWithoutTimeIsNotSent() throws {
        let bench = try Bench()
        let (submission, outcome) = try bench.submission(in: .zero)
        #expect(bench.handler.submit([submission]))
        #expect(outcome.error?.code == .timeout)
        #expect(outcome.error?.mayHaveRun == false)
        #expect(try bench.written().isEmpty)
        #expect(bench.budget.pendingCommands == 0)
    }

    @Test func answeredCommandsLeaveNoDeadline() throws {
        let bench = try Bench()
        _ = try bench.send()
        try bench.receive("+OK\r\n")
        bench.channel.embeddedEventLoop.advanceTime(by: .hours(1))
        #expect(bench.channel.isActive)
    }

    @Test(arguments: ["+OK\r\n+OK\r\n", "+OK\r\n?\r\n"])
    func uncalledForBytesCloseTheConnection(_ text: String) throws {
        let bench = try Bench()
        let outcome = try bench.send()
        try bench.receive(text)
        #expect(outcome.reply == .status("OK"))
        #expect(!bench.channel.isActive)
    }

    @Test func brokenStreamFailsWhatIsUnanswered() throws {
        let bench = try Bench()
        let outcome = try bench.send()
        try bench.receive("$x\r\n")
        #expect(outcome.error?.code == .protocolViolation)
        #expect(outcome.error?.mayHaveRun == true)
        #expect(!bench.channel.isActive)
    }

    @Test func closedConnectionFailsWhatIsUnanswered() throws {
        let bench = try Bench()
        let outcomes = try (0..<5).map { _ in try bench.send() }
        try bench.channel.close().wait()
        #expect(outcomes.allSatisfy { $0.error?.code == .connectionLost && $0.error?.mayHaveRun == true })
    }

    @Test func smallCommandsTravelTogetherAndLargeOnesAlone() throws {
        let bench = try Bench()
        let large = String(repeating: "L", count: 100_000)
        let submissions = try ["a", "b", large, "c"].map { try bench.submission($0).0 }
        #expect(bench.handler.submit(submissions))
        #expect(try bench.written() == ["ab", large, "c"])
    }

    @Test func budgetIsBounded() throws {
        var limits = RedisLimits()
        limits.pendingCommandsMax = 3
        limits.pendingBytesMax = 100
        let bench = try Bench(limits)
        for _ in 0..<3 { _ = try bench.send() }
        #expect(throws: RedisError.self) { try bench.send() }
        try bench.receive("+OK\r\n")
        #expect(throws: RedisError.self) { try bench.send(String(repeating: "x", count: 99)) }
        _ = try bench.send()
        #expect(bench.budget.pendingCommands == 3)
    }
}

@Suite(.timeLimit(.minutes(5)))
struct HandshakeTests {
    private func handshake(
        _ configuration: RedisConfiguration,
        answer: String?,
        after: TimeAmount = .zero
    ) throws -> (sent: String, error: RedisError?, isActive: Bool) {
        let channel = EmbeddedChannel()
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 6379)).wait()
        let promise = channel.eventLoop.makePromise(of: Void.self)
        try channel.pipeline.syncOperations.addHandler(
            HandshakeHandler(try Handshake(configuration), configuration: configuration, promise: promise)
        )
        let sent = try channel.readOutbound(as: ByteBuffer.self).map { String(buffer: $0) } ?? ""
        if let answer { try channel.writeInbound(ByteBuffer(string: answer)) }
        channel.embeddedEventLoop.advanceTime(by: after)
        var error: RedisError?
        do { try promise.futureResult.wait() } catch let problem { error = problem as? RedisError }
        return (sent, error, channel.isActive)
    }

    private let plain = RedisConfiguration(address: .tcp(host: "h", port: 1), clientName: "me")
    private let full = RedisConfiguration(address: .tcp(host: "h", port: 1), username: "u", password: "p", database: 4, clientName: "me")

    @Test func everythingIsSaidInOneWrite() throws {
        let result = try handshake(full, answer: "+OK\r\n+OK\r\n+OK\r\n")
        #expect(
            result.sent == "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n" + "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$2\r\nme\r\n"
                + "*2\r\n$6\r\nSELECT\r\n$1\r\n4\r\n"
        )
        #expect(result.error == nil)
        #expect(result.isActive)
    }

    @Test(arguments: [
        ("-WRONGPASS invalid username-password pair or user is disabled.\r\n", RedisError.Code.authentication),
        ("-ERR AUTH <password> called without any password configured for the default user.\r\n", .authentication),
        ("+OK\r\n+OK\r\n-ERR DB index is out of range\r\n", .invalidConfiguration),
        ("-ERR max number of clients reached\r\n", .unreachable),
        ("-DENIED Redis is running in protected mode\r\n", .authentication),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", .protocolViolation),
        ("$3\r\nabc\r\n", .protocolViolation),
    ])
    func refusalsAreTyped(_ answer: String, _ code: RedisError.Code) throws {
        let result = try handshake(full, answer: answer)
        #expect(result.error?.code == code)
        #expect(result.error?.mayHaveRun == false)
        #expect(!result.isActive)
    }

    @Test func passwordThatIsMissingIsNoticed() throws {
        #expect(try handshake(plain, answer: "-NOAUTH Authentication required.\r\n").error?.code == .authentication)
    }

    @Test func nameThatIsForbiddenIsNoProblem() throws {
        #expect(try handshake(plain, answer: "-ERR Client names cannot contain spaces\r\n").error == nil)
    }

    @Test func silenceEndsAtTheTimeout() throws {
        #expect(try handshake(plain, answer: nil, after: .seconds(2)).error?.code == .unreachable)
    }
}

struct BackoffTests {
    @Test func ceilingDoublesUpToTheMaximum() {
        var backoff = Backoff(limits: RedisLimits(), random: { 1 })
        #expect((0..<9).map { _ in backoff.next().nanoseconds / 1_000_000 } == [50, 100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000])
        for _ in 0..<100 { #expect(backoff.next() == .seconds(2)) }
        backoff.reset()
        #expect(backoff.next() == .milliseconds(50))
    }

    @Test func jitterIsFull() {
        var none = Backoff(limits: RedisLimits(), random: { 0 })
        var half = Backoff(limits: RedisLimits(), random: { 0.5 })
        #expect(none.next() == .zero)
        #expect(half.next() == .milliseconds(25))
    }
}
