import Glibc
import Logging
import NIOCore
import NIOPosix
import RedisLink
import TestSupport
import Testing

/// What users of the client see when the server is slow, gone, wrong or back.
@Suite(.timeLimit(.minutes(5)))
struct RedisFaultTests {
    @Test func frozenServerMeansTimeoutThenALostConnectionThenRecovery() async throws {
        let server = try await RedisServer.start()
        var configuration = server.configuration(poolSize: 1)
        configuration.commandTimeout = .seconds(2)
        try await withClient(configuration) { client in
            _ = try await client.send(["PING"], timeout: .seconds(20))
            server.freeze()
            let start = ContinuousClock.now
            async let first = redisError { _ = try await client.send(["INCR", "n"]) }
            // In this order on the connection: the overdue one is in front.
            try await eventually(within: .seconds(1)) { client.pendingCommands == 1 }
            async let second = redisError { _ = try await client.send(["INCR", "n"], timeout: .seconds(30)) }
            let errors = await [first, second].compactMap { $0 }
            #expect(errors.count == 2)
            #expect(errors.contains { $0.code == .timeout })
            #expect(errors.allSatisfy { $0.mayHaveRun })
            #expect(ContinuousClock.now - start < .seconds(25))
            server.thaw()
            try await eventually { (try? await client.send(["PING"])) == .status("PONG") }
        }
    }

    @Test func killedServerFailsCommandsTypedAndTheClientComesBack() async throws {
        let server = try await RedisServer.start(.init(isDurable: true))
        try await withClient(server.configuration(poolSize: 2)) { client in
            _ = try await client.send(["SET", "k", "v"])
            server.freeze()
            let pending = Task { await redisError { _ = try await client.send(["SET", "k", "w"], timeout: .seconds(30)) } }
            try await eventually { client.pendingCommands == 1 }
            server.kill()
            let lost = await pending.value
            #expect(lost?.code == .connectionLost)
            #expect(lost?.mayHaveRun == true)

            // While it is away: fast, typed, certainly not run.
            try await eventually { !client.isConnected }
            let start = ContinuousClock.now
            let away = await redisError { _ = try await client.send(["SET", "k", "x"]) }
            #expect(away?.code == .unreachable)
            #expect(away?.mayHaveRun == false)
            #expect(ContinuousClock.now - start < .seconds(20))

            try await server.start()
            try await eventually { (try? await client.send(["GET", "k"]))?.string == "v" }
            #expect(client.pendingCommands == 0)
        }
    }

    @Test func commandSentDuringAShortOutageIsNotLost() async throws {
        let server = try await RedisServer.start()
        var configuration = server.configuration(poolSize: 1)
        configuration.limits.connectionWaitMax = .seconds(10)
        configuration.commandTimeout = .seconds(10)
        try await withClient(configuration) { client in
            _ = try await client.send(["PING"])
            server.kill()
            try await eventually { !client.isConnected }
            async let reply = client.send(["ECHO", "after"])
            try await server.start()
            let text = try await reply.string
            #expect(text == "after")
        }
    }

    @Test func commandsBeforeRunWaitForTheConnection() async throws {
        let server = try await RedisServer.start()
        let client = RedisClient(
            configuration: server.configuration(),
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            logger: quietLogger()
        )
        async let early = client.send(["ECHO", "early"])
        try await eventually { client.pendingCommands == 1 }
        let running = Task { try await client.run() }
        let text = try await early.string
        #expect(text == "early")
        running.cancel()
        try await running.value
        let ended = await redisError { _ = try await client.send(["PING"]) }
        #expect(ended?.code == .closed)
    }

    @Test func clientThatNeverRunsSaysSo() async throws {
        var configuration = RedisConfiguration(address: .tcp(host: "127.0.0.1", port: 1))
        configuration.connectTimeout = .milliseconds(100)
        let client = RedisClient(
            configuration: configuration,
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            logger: quietLogger()
        )
        let error = await redisError { _ = try await client.send(["PING"]) }
        #expect(error?.code == .unreachable)
        #expect(error?.message.contains("run()") == true)
    }

    @Test(arguments: ["redis://127.0.0.1:1", "unix:///nowhere/redis.sock", "redis://no-such-host.invalid:6379"])
    func addressesWithoutAServerAreUnreachable(_ url: String) async throws {
        try await withClient(try RedisConfiguration(url: url)) { client in
            let error = await redisError { _ = try await client.send(["PING"]) }
            #expect(error?.code == .unreachable)
            #expect(error?.mayHaveRun == false)
            let blocked = await redisError { _ = try await client.blockingSend(["BLPOP", "q", "1"], timeout: .seconds(1)) }
            #expect(blocked?.code == .unreachable)
        }
    }

    @Test(arguments: ["wrong", nil] as [String?])
    func wrongOrMissingPasswordIsNamed(_ password: String?) async throws {
        let server = try await RedisServer.start(.init(password: "right"))
        var configuration = server.configuration()
        configuration.password = password
        try await withClient(configuration) { client in
            var errors = [await redisError { _ = try await client.send(["PING"]) }]
            // Once it is known that no wait helps, nobody waits.
            let start = ContinuousClock.now
            for _ in 0..<20 { errors.append(await redisError { _ = try await client.send(["PING"]) }) }
            #expect(ContinuousClock.now - start < .seconds(20))
            for error in errors {
                #expect(error?.code == .authentication)
                #expect(error?.mayHaveRun == false)
                #expect(error?.message.contains("password") == true)
                #expect(error.map { "\($0)".contains("wrong") } == false)
            }
            // The operator corrects the server: the client comes by itself.
            if password == nil {
                try await server.cli("CONFIG", "SET", "requirepass", "")
                try await eventually { (try? await client.send(["PING"])) == .status("PONG") }
            }
        }
    }

    @Test func databaseThatDoesNotExistIsNamed() async throws {
        let server = try await RedisServer.start()
        var configuration = server.configuration()
        configuration.database = 99
        try await withClient(configuration) { client in
            let error = await redisError { _ = try await client.send(["PING"]) }
            #expect(error?.code == .invalidConfiguration)
            #expect(error?.message.contains("99") == true)
        }
    }

    @Test func fullServerRefusesWrites() async throws {
        let server = try await RedisServer.start(.init(maxMemory: "1mb"))
        try await withClient(server.configuration()) { client in
            let error = await redisError {
                for number in 0..<1_000 {
                    _ = try await client.send(["SET", .string("k\(number)"), .buffer(ByteBuffer(repeating: 0, count: 10_000))])
                }
            }
            #expect(error?.code == .outOfMemory)
            _ = try await client.send(["GET", "k0"])
        }
    }

    @Test func wrongTypeAndUnknownCommandAreErrors() async throws {
        let server = try await RedisServer.start()
        try await withClient(server.configuration()) { client in
            _ = try await client.send(["SET", "s", "x"])
            let wrong = await redisError { _ = try await client.send(["LPUSH", "s", "y"]) }
            #expect(wrong?.code == .wrongType)
            let unknown = await redisError { _ = try await client.send(["NOSUCH"]) }
            #expect(unknown?.code == .server)
        }
    }

    @Test func busyScriptIsBusy() async throws {
        let server = try await RedisServer.start(.init(extraArguments: ["--lua-time-limit", "50"]))
        try await withClient(server.configuration()) { client in
            // Somebody else's script: on an own connection, so that no command waits behind it.
            let script = Task { try await server.cli("EVAL", "while true do end", "0") }
            try await eventually {
                do {
                    _ = try await client.send(["GET", "k"], timeout: .seconds(10))
                    return false
                } catch let error as RedisError { return error.code == .busy }
            }
            _ = try? await client.send(["SCRIPT", "KILL"])
            _ = try await script.value
        }
    }

    @Test func cancelledTasksDoNotHang() async throws {
        let server = try await RedisServer.start()
        try await withClient(server.configuration(poolSize: 1)) { client in
            _ = try await client.send(["PING"])
            server.freeze()
            let start = ContinuousClock.now
            let task = Task { await redisError { _ = try await client.send(["PING"], timeout: .seconds(30)) } }
            try await eventually { client.pendingCommands == 1 }
            task.cancel()
            let error = await task.value
            #expect(error?.code == .cancelled)
            #expect(ContinuousClock.now - start < .seconds(20))
            server.thaw()
            // Its late reply disturbs nobody.
            let reply = try await client.send(["ECHO", "x"])
            #expect(reply.string == "x")
            try await eventually { client.pendingCommands == 0 }
        }
    }

    @Test func tooMuchUnansweredIsRefused() async throws {
        let server = try await RedisServer.start()
        var configuration = server.configuration(poolSize: 1)
        configuration.limits.pendingCommandsMax = 100
        try await withClient(configuration) { client in
            let error = await redisError { _ = try await client.pipeline(Array(repeating: ["PING"], count: 101)) }
            #expect(error?.code == .tooManyPending)
            #expect(error?.mayHaveRun == false)
            let replies = try await client.pipeline(Array(repeating: ["PING"], count: 100))
            #expect(replies.count == 100)
        }
    }

    @Test func replyBeyondTheLimitEndsTheConnectionNotTheClient() async throws {
        let server = try await RedisServer.start()
        var configuration = server.configuration(poolSize: 1)
        configuration.limits.replyBytesMax = 100_000
        try await withClient(configuration) { client in
            _ = try await client.send(["SET", "big", .buffer(ByteBuffer(repeating: 65, count: 500_000))])
            let error = await redisError { _ = try await client.send(["GET", "big"]) }
            #expect(error?.code == .protocolViolation)
            try await eventually { (try? await client.send(["PING"])) == .status("PONG") }
        }
    }
}
