import Glibc
import Logging
import NIOCore
import NIOPosix
import RedisLink
import TestSupport
import Testing

/// Runs `body` with a client whose `run()` is under way, and ends that afterwards.
func withClient<Result: Sendable>(
    _ configuration: RedisConfiguration,
    _ body: (RedisClient) async throws -> Result
) async throws -> Result {
    let client = RedisClient(
        configuration: configuration,
        eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
        logger: quietLogger()
    )
    let running = Task { try await client.run() }
    do {
        let result = try await body(client)
        running.cancel()
        try await running.value
        return result
    } catch {
        running.cancel()
        try await running.value
        throw error
    }
}

func quietLogger() -> Logger { Logger(label: "test") { _ in SwiftLogNoOpLogHandler() } }

/// The error that `body` throws; records an issue when it throws none.
func redisError(_ body: () async throws -> Void) async -> RedisError? {
    do {
        try await body()
        Issue.record("nothing was thrown")
    } catch let error as RedisError {
        return error
    } catch {
        Issue.record("\(error) was thrown")
    }
    return nil
}

@Suite(.timeLimit(.minutes(5)))
struct RedisClientTests {
    @Test(arguments: [true, false])
    func sendsAndReceives(overTCP: Bool) async throws {
        let server = try await RedisServer.start(.init(listensOnTCP: overTCP, password: "p w:%@/"))
        try await withClient(server.configuration()) { client in
            let reply1 = try await client.send(["SET", "k", .buffer(ByteBuffer(bytes: [0, 13, 10, 255]))])
            #expect(reply1 == .status("OK"))
            let reply2 = try await client.send(["GET", "k"])
            #expect(reply2.buffer == ByteBuffer(bytes: [0, 13, 10, 255]))
            let reply3 = try await client.send(["GET", "absent"])
            #expect(reply3.isNull)
            let reply4 = try await client.send(["INCRBY", "n", .int(-7)])
            #expect(reply4.int == -7)
            let reply5 = try await client.send(["LRANGE", "absent", "0", "-1"])
            #expect(reply5.array == [])
            #expect(client.isConnected)
            #expect(client.pendingCommands == 0)
        }
    }

    @Test func concurrentCommandsGetTheirOwnReplies() async throws {
        let server = try await RedisServer.start()
        try await withClient(server.configuration(poolSize: 3)) { client in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<10_000 {
                    group.addTask {
                        let reply6 = try await client.send(["ECHO", .int(number)])
                        #expect(reply6.int == number)
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test func pipelineOfTenThousandKeepsItsOrder() async throws {
        let server = try await RedisServer.start()
        try await withClient(server.configuration()) { client in
            let replies = try await client.pipeline((0..<10_000).map { ["ECHO", .int($0)] })
            #expect(replies.map(\.int) == Array(0..<10_000))
            let mixed = try await client.pipeline([["SET", "s", "x"], ["INCR", "s"], ["GET", "s"]])
            #expect(mixed.count == 3)
            #expect(mixed[0] == .status("OK"))
            #expect(mixed[2].string == "x")
            guard case .error(let text) = mixed[1] else { throw RedisError(.server, "no error reply") }
            #expect(text.hasPrefix("ERR"))
        }
    }

    @Test func bigValuesPass() async throws {
        let server = try await RedisServer.start()
        try await withClient(server.configuration()) { client in
            let big = ByteBuffer(bytes: (0..<20_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) })
            _ = try await client.send(["SET", "big", .buffer(big)], timeout: .seconds(20))
            let reply7 = try await client.send(["GET", "big"], timeout: .seconds(20))
            #expect(reply7.buffer == big)
        }
    }
}
