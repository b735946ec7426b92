import Glibc
import Synchronization
import TestSupport
import Testing

@testable import headway

@Suite(.timeLimit(.minutes(5))) struct GatewayClientTests {
    private func client(
        _ script: @escaping @Sendable (FakeGateway.Request, Int) -> FakeGateway.Reply,
        during body: (GatewayClient, FakeGateway) async throws -> Void
    ) async throws {
        try await FakeGateway.with(script) { gateway in
            try await GatewayClient.with(baseURL: gateway.url + "/") { try await body($0, gateway) }
        }
    }

    private func write(_ text: String, to path: String) {
        let file = fopen(path, "w")
        fputs(text, file)
        fclose(file)
    }

    private func read(_ path: String) throws -> String { try TextFile.read(path, limit: 1 << 20) }

    @Test func aFileIsUploadedWhole() async throws {
        let directory = try makeTemporaryDirectory(prefix: "hw-client")
        defer { removeDirectory(directory) }
        let text = String(repeating: "0123456789", count: 30_000)
        write(text, to: "\(directory)/a b.txt")
        try await client { _, _ in
            .answer(status: 201, body: #"{"upload":"u","name":"a b.txt"}"#)
        } during: { client, gateway in
            let upload = try await client.upload("\(directory)/a b.txt")
            #expect(upload.upload == "u")
            #expect(gateway.seen.first?.path == "/v1/uploads?name=a%20b.txt")
            #expect(gateway.seen.first?.body == text)
        }
    }

    @Test func aResultIsDownloadedUnderItsName() async throws {
        let directory = try makeTemporaryDirectory(prefix: "hw-client")
        defer { removeDirectory(directory) }
        try await client { _, _ in
            .answer(status: 200, body: "the model")
        } during: { client, _ in
            let path = try await client.download(.init(name: "m.glb", bytes: 9, url: "/v1/jobs/J/files/m.glb"), into: directory)
            #expect(path == "\(directory)/m.glb")
            #expect(try read(path) == "the model")
        }
    }

    @Test(arguments: [("../evil", "/x"), ("a/b", "/x"), ("", "/x"), (".bashrc", "/x"), ("a", "http://elsewhere/x"), ("a", "//elsewhere/x")])
    func hostileResultsAreRefused(_ name: String, _ url: String) async throws {
        try await client { _, _ in
            .answer(status: 200, body: "x")
        } during: { client, gateway in
            await #expect(throws: CommandError.self) { _ = try await client.download(.init(name: name, bytes: 1, url: url), into: "/tmp") }
            #expect(gateway.seen.isEmpty)
        }
    }

    @Test func aBrokenDownloadLeavesNothing() async throws {
        let directory = try makeTemporaryDirectory(prefix: "hw-client")
        defer { removeDirectory(directory) }
        try await client { _, _ in
            .stream("half", staysOpen: false)
        } during: { client, _ in
            await #expect(throws: CommandError.self) {
                _ = try await client.download(.init(name: "m.glb", bytes: 9, url: "/f"), into: directory)
            }
        }
        #expect(access("\(directory)/m.glb", F_OK) != 0)
    }

    @Test(arguments: [
        (400, "queue_unknown", CommandError.Code.usage), (404, "job_not_found", .absent), (410, "gone", .absent), (409, "conflict", .usage),
        (503, "unavailable", .linkLost), (500, "internal", .linkLost),
    ])
    func refusalsKeepTheGatewaysWords(_ status: Int, _ code: String, _ expected: CommandError.Code) async throws {
        let body = #"{"error":{"code":"\#(code)","message":"say it","request_id":"r"}}"#
        try await client { _, _ in
            .answer(status: status, body: body)
        } during: { client, _ in
            let error = await #expect(throws: CommandError.self) { _ = try await client.snapshot("J") }
            #expect(error == CommandError(expected, "job J: say it (\(code))"))
        }
    }

    @Test func aLostReplyToASubmitIsAskedForAgainAsTheSameJob() async throws {
        let settings = try SettingsReader(flags: [.init(Settings.submitQueue, "gpu")], environment: [:], file: nil)
        let request = try SubmitRequest(settings)
        try await client { _, count in
            count < 2 ? .broken : .answer(status: 200, body: #"{"job":"J9"}"#)
        } during: { client, gateway in
            let job = try await request.send(to: client).job
            #expect(job == "J9")
            #expect(gateway.seen.count == 3 && Set(gateway.seen.map(\.body)).count == 1)
            #expect(gateway.seen[0].body.contains("idempotency_key"))
        }
    }

    @Test func aChildWithoutNumberIsSubmittedOnce() async throws {
        let flags: [SettingsReader.Flag] = [.init(Settings.submitQueue, "gpu"), .init(Settings.submitParent, "G")]
        let request = try SubmitRequest(SettingsReader(flags: flags, environment: [:], file: nil))
        try await client { _, _ in
            .broken
        } during: { client, gateway in
            let error = await #expect(throws: CommandError.self) { _ = try await request.send(to: client) }
            #expect(error?.code == .linkLost && gateway.seen.count == 1)
        }
    }

    @Test func aRetryWithALostReplyIsAskedForAgain() async throws {
        try await client { _, count in
            count < 2 ? .broken : .answer(status: 201, body: #"{"job":"J2"}"#)
        } during: { client, gateway in
            let job = try await RetryCommand.send("a:b", #"{"x":1}"#, to: client).job
            #expect(job == "J2")
            #expect(gateway.seen.map(\.path) == Array(repeating: "/v1/jobs/a%3Ab/retry", count: 3))
            #expect(gateway.seen.last?.body == #"{"params":{"x":1}}"#)
        }
    }

    @Test func aDiagnosisIsToldInWords() async throws {
        let json =
            #"{"job":"J","phase":"QUEUED","queue":"gpu","attempt":2,"max_attempts":3,"at":100000,"reasons":["#
            + #"{"code":"in_line","message":"2 jobs are ahead of it","queue_ahead":2}],"#
            + #""failures":[{"attempt":1,"at":40000,"code":"oom","message":"the card\nis full"}]}"#
        try await client { _, count in
            count == 0 ? .answer(status: 200, body: json) : .answer(status: 404, body: #"{"error":{"code":"job_not_found"}}"#)
        } during: { client, gateway in
            let lines = try #require(DiagnosisText(json: try await client.why("J"))).lines
            #expect(lines.first == "J: QUEUED in gpu, attempt 2 of 3")
            #expect(lines.dropFirst().first == "  2 jobs are ahead of it")
            #expect(lines.count == 3 && lines[2].hasPrefix("  attempt 1 failed") && lines[2].contains("(oom)"))
            let error = await #expect(throws: CommandError.self) { _ = try await client.why("J") }
            #expect(error?.code == .absent && gateway.seen.map(\.path) == ["/v1/jobs/J/why", "/v1/jobs/J/why"])
        }
    }

    @Test func stagesAreANicety() async throws {
        let pipelines = #"{"pipelines":[{"name":"relief","stages":[{"name":"a","phase":"ANALYZING","weight":1}]}]}"#
        try await client { _, count in
            count == 0 ? .answer(status: 200, body: pipelines) : .answer(status: 500, body: "")
        } during: { client, _ in
            #expect(await client.stageNames() == ["relief": ["a"]])
            #expect(await client.stageNames().isEmpty)
        }
    }
}
