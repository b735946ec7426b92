import Glibc
import NIOCore
import Telemetry
import TestSupport
import Testing

@testable import Gateway

/// Bytes that are not HTTP, or only nearly: each connection ends with a word or without, the process goes on.
@Suite(.timeLimit(.minutes(5))) struct HostileBytesTests {
    @Test(arguments: [
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}", "SSH-2.0-OpenSSH_9.6\r\n", "\r\n\r\nxyz\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /now\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "*2\r\n$4\r\nPING\r\n",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        "GET /now HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", "GET /now HTTP/1.1\r\nHost localhost\r\n\r\n",
        "GET /now HTTP/1.1\r\n: x\r\n\r\n", "GET /now HTTP/1.1\r\nHost: localhost\r\n X: folded\r\n\r\n",
        "GET /\u{1} HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /now HTTP/1.1\r\n\r\n",
    ]) func isRefused(_ bytes: String) async throws {
        try await ServiceFixture.with { fixture in
            let client = try await fixture.connect()
            await client.send(bytes)
            let answer = try await client.response()
            #expect(answer.status == 400 && answer.code == "bad_request", "\(bytes)")
            #expect(try await fixture.connect().ask("GET", "/now").status == 200)
        }
    }

    @Test func headsHaveLimits() async throws {
        try await ServiceFixture.with { fixture in
            let long = try await fixture.connect().ask("GET", "/now?x=" + String(repeating: "a", count: 9000))
            #expect(long.status == 414 && long.code == "uri_too_long")
            for headers in [
                [("X-Long", String(repeating: "a", count: 20_000))], (0..<40).map { ("X-\($0)", String(repeating: "a", count: 1000)) },
                (0..<200).map { ("X-\($0)", "a") },
            ] {
                let client = try await fixture.connect()
                let answer = try await client.ask("GET", "/now", headers: headers)
                #expect(answer.status == 431 && answer.code == "headers_too_large")
                try await client.waitUntilClosed()
            }
            // One header without an end: cut when it is too long, whatever it is.
            let endless = try await fixture.connect()
            await endless.send("GET /now HTTP/1.1\r\nX: ")
            for _ in 0..<50 where !endless.isClosed { await endless.send(Array(repeating: 0x61, count: 4096)) }
            #expect(try await endless.response().status == 431)
        }
    }

    /// Random and nearly right bytes in random pieces, over many connections. Afterwards the server answers as before, every
    /// connection is gone, and its memory is what it was.
    @Test func aFloodOfGarbageHurtsNobody() async throws {
        var limits = GatewayLimits()
        limits.lingerTimeout = .milliseconds(50)
        limits.idleTimeout = .milliseconds(500)
        limits.headTimeout = .milliseconds(300)
        limits.bodyTimeout = .milliseconds(300)
        limits.uploadWindow = .milliseconds(300)
        try await ServiceFixture.with(limits: limits) { fixture in
            fixture.probe.release()
            try await flood(fixture, seed: 1, connections: 200)
            let before = residentBytes()
            for seed in 2...6 { try await flood(fixture, seed: UInt64(seed), connections: 300) }
            #expect(residentBytes() - before < 64 << 20)
            #expect(try await fixture.connect().ask("GET", "/now").status == 200)
        }
    }

    private func flood(_ fixture: ServiceFixture, seed: UInt64, connections: Int) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<connections {
                if number >= 32 { try await group.next() }
                group.addTask {
                    var generator = SeededGenerator(seed: seed << 32 | UInt64(number))
                    let client = try await fixture.connect()
                    for _ in 0..<Int.random(in: 1...4, using: &generator) where !client.isClosed {
                        await client.send(Garbage.bytes(using: &generator))
                    }
                    await client.close()
                }
            }
            try await group.waitForAll()
        }
        try await eventually("every connection to be gone") { fixture.service.connections.count == 0 }
    }

    private func residentBytes() -> Int {
        guard let file = fopen("/proc/self/statm", "r") else { return 0 }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 128)
        guard fgets(&line, 128, file) != nil else { return 0 }
        let fields = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).split(separator: " ")
        return fields.count > 1 ? (Int(fields[1]) ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE))) : 0
    }
}

private enum Garbage {
    private static let seeds = [
        "GET /now?n=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        "POST /up HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "GET /stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nabc",
        "HEAD /now HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n", "OPTIONS /echo HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /refuse HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]

    static func bytes(using generator: inout SeededGenerator) -> [UInt8] {
        if generator.chance(15) {
            return (0..<Int.random(in: 1...3000, using: &generator)).map { _ in UInt8.random(in: 0...255, using: &generator) }
        }
        var bytes: [UInt8] = []
        for _ in 0..<Int.random(in: 1...5, using: &generator) { bytes += Array((seeds.randomElement(using: &generator) ?? "").utf8) }
        for _ in 0..<Int.random(in: 0...5, using: &generator) where !bytes.isEmpty {
            let index = Int.random(in: 0..<bytes.count, using: &generator)
            switch Int.random(in: 0..<4, using: &generator) {
            case 0: bytes[index] = UInt8.random(in: 0...255, using: &generator)
            case 1: bytes.remove(at: index)
            case 2: bytes.removeSubrange(index...)
            default: bytes.insert(contentsOf: Array("\r\n: 0,\0".utf8).shuffled(using: &generator).prefix(2), at: index)
            }
        }
        return bytes
    }
}
