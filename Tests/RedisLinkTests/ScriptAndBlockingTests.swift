import NIOCore
import NIOPosix
import RedisLink
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5)))
struct ScriptAndBlockingTests {
    /// Redis itself says what the SHA-1 is.
    private func loaded(_ source: String, _ server: RedisServer) async throws -> RedisScript {
        RedisScript(name: "test", source: source, sha1: try await server.cli("SCRIPT", "LOAD", source))
    }

    @Test func scriptRunsBeforeAndAfterItWasFlushed() async throws {
        let server = try await RedisServer.start()
        let script = try await loaded("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}", server)
        try await withClient(server.configuration()) { client in
            for round in 1...4 {
                if round % 2 == 0 { _ = try await client.send(["SCRIPT", "FLUSH"]) }
                let reply = try await client.evaluate(script, keys: ["n"], arguments: [.int(7)])
                #expect(reply == .array([.bulk(ByteBuffer(string: "n")), .bulk(ByteBuffer(string: "7")), .integer(Int64(round))]))
            }
            let exists = try await client.send(["SCRIPT", "EXISTS", .string(script.sha1)])
            #expect(exists == .array([.integer(1)]))
        }
    }

    @Test func errorInsideAScriptMayHaveRun() async throws {
        let server = try await RedisServer.start()
        let script = try await loaded("redis.call('SET', 'k', 'v') return redis.call('LPUSH', 'k', 'x')", server)
        try await withClient(server.configuration()) { client in
            let error = await redisError { _ = try await client.evaluate(script, keys: [], arguments: []) }
            #expect(error?.code == .wrongType)
            #expect(error?.mayHaveRun == true)
            let reply = try await client.send(["GET", "k"])
            #expect(reply.string == "v")
        }
    }

    @Test func blockingCommandsDoNotHoldUpOthers() async throws {
        let server = try await RedisServer.start()
        try await withClient(server.configuration(poolSize: 1)) { client in
            try await withThrowingTaskGroup(of: String?.self) { group in
                for number in 0..<8 {
                    group.addTask {
                        try await client.blockingSend(["BLPOP", .string("q\(number)"), "10"], timeout: .seconds(10)).array?.last?.string
                    }
                }
                try await eventually { try await server.cli("INFO", "clients").contains("blocked_clients:8") }
                for number in 0..<8 { _ = try await client.send(["RPUSH", .string("q\(number)"), .int(number)]) }
                var seen: Set<String> = []
                for try await value in group { if let value { seen.insert(value) } }
                #expect(seen == Set((0..<8).map { "\($0)" }))
            }
        }
    }

    @Test func connectionsAreKeptForTheNextBlockingCommand() async throws {
        let server = try await RedisServer.start()
        var configuration = server.configuration(poolSize: 1)
        configuration.limits.blockingSlack = .seconds(30)
        try await withClient(configuration) { client in
            for _ in 0..<20 {
                let reply = try await client.blockingSend(["BLPOP", "none", "0.01"], timeout: .milliseconds(10))
                #expect(reply.isNull)
            }
            let received = try await server.cli("INFO", "stats")
            let count = received.split(whereSeparator: \.isNewline).first { $0.hasPrefix("total_connections_received:") }
            // One of the pool, one for blocking, a few of redis-cli and of the start.
            let number = Int(count?.split(separator: ":").last?.filter(\.isNumber) ?? "") ?? .max
            #expect(number < 10)
            // A server that hung up in between is no error.
            try await server.cli("CLIENT", "KILL", "TYPE", "normal")
            try await eventually { client.isConnected }
            let again = try await client.blockingSend(["BLPOP", "none", "0.01"], timeout: .milliseconds(10))
            #expect(again.isNull)
        }
    }

    @Test func cancellationEndsABlockingCommandAtOnce() async throws {
        let server = try await RedisServer.start()
        try await withClient(server.configuration()) { client in
            let task = Task { await redisError { _ = try await client.blockingSend(["BLPOP", "q", "30"], timeout: .seconds(30)) } }
            try await eventually { try await server.cli("INFO", "clients").contains("blocked_clients:1") }
            let start = ContinuousClock.now
            task.cancel()
            let error = await task.value
            #expect(error?.code == .cancelled)
            #expect(ContinuousClock.now - start < .seconds(20))
            // Redis forgot it: what is pushed now stays for others.
            try await eventually { try await server.cli("INFO", "clients").contains("blocked_clients:0") }
            _ = try await client.send(["RPUSH", "q", "x"])
            let length = try await client.send(["LLEN", "q"])
            #expect(length.int == 1)
        }
    }

    @Test func blockingCommandWithoutAnAnswerEndsAtItsDeadline() async throws {
        let server = try await RedisServer.start()
        var configuration = server.configuration()
        configuration.limits.blockingSlack = .milliseconds(100)
        try await withClient(configuration) { client in
            let start = ContinuousClock.now
            let error = await redisError { _ = try await client.blockingSend(["BLPOP", "q", "0"], timeout: .milliseconds(200)) }
            #expect(error?.code == .timeout)
            #expect(ContinuousClock.now - start < .seconds(60))
        }
    }

    @Test func blockingConnectionsAreBounded() async throws {
        let server = try await RedisServer.start()
        var configuration = server.configuration()
        configuration.limits.blockingConnectionsMax = 1
        try await withClient(configuration) { client in
            let task = Task { try? await client.blockingSend(["BLPOP", "q", "30"], timeout: .seconds(30)) }
            try await eventually { try await server.cli("INFO", "clients").contains("blocked_clients:1") }
            let error = await redisError { _ = try await client.blockingSend(["BLPOP", "q", "30"], timeout: .seconds(30)) }
            #expect(error?.code == .tooManyPending)
            task.cancel()
            _ = await task.value
        }
    }

    @Test func endOfTheClientEndsBlockingCommands() async throws {
        let server = try await RedisServer.start()
        let task = try await withClient(server.configuration()) { client in
            let task = Task { await redisError { _ = try await client.blockingSend(["BLPOP", "q", "30"], timeout: .seconds(30)) } }
            try await eventually { try await server.cli("INFO", "clients").contains("blocked_clients:1") }
            return task
        }
        #expect(await task.value?.code == .closed)
    }

    @Test func futuresWorkOnAnEventLoop() async throws {
        let server = try await RedisServer.start()
        try await withClient(server.configuration()) { client in
            let loop = MultiThreadedEventLoopGroup.singleton.next()
            let reply = try await client.sendFuture(["ECHO", "f"], on: loop).get()
            #expect(reply.string == "f")
            let error = await redisError { _ = try await client.sendFuture(["NOSUCH"], on: loop).get() }
            #expect(error?.code == .server)
            let empty = await redisError { _ = try await client.sendFuture([], on: loop).get() }
            #expect(empty?.code == .invalidConfiguration)
        }
    }
}
