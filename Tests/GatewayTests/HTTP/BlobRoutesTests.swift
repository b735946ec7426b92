import JobStore
import NIOCore
import ProgressCore
import Telemetry
import TestSupport
import Testing

@testable import Gateway

/// Files over HTTP: in piece by piece, out in ranges, and only to those who may.
@Suite(.timeLimit(.minutes(5))) struct BlobRoutesTests {
    private static let png: [UInt8] = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a] + Array(repeating: 7, count: 1000)

    private func text(_ name: String, of answer: RawClient.Response) throws -> String {
        var found: String?
        try CheckedJSON(answer.body, maximumDepth: 9).root.forEachMember { member, value in if member == name { found = value.string } }
        return try #require(found)
    }

    @Test func anUploadComesBackAsItWas() async throws {
        try await GatewayFixture.with { fixture in
            let answer = try await fixture.ask(
                "POST",
                "/v1/uploads?name=m%C3%BCde%20katze.png",
                headers: [("Content-Type", "image/png")],
                body: Self.png
            )
            #expect(answer.status == 201)
            let id = try text("upload", of: answer)
            #expect(answer.header("location") == "/v1/uploads/\(id)" && id.utf8.count == 32)
            #expect(answer.text.contains("\"name\":\"müde katze.png\",\"bytes\":1008,\"content_type\":\"image/png\""))
            let file = try await fixture.ask("GET", "/v1/uploads/\(id)")
            #expect(file.status == 200 && file.body == Self.png && file.header("content-type") == "image/png")
            #expect(file.header("content-disposition") == "attachment; filename*=UTF-8''m%C3%BCde%20katze.png")
            #expect(file.header("x-content-type-options") == "nosniff")
            let input = "{\"queue\":\"gpu\",\"pipeline\":\"relief\",\"params\":{\"inputs\":[{\"upload\":\"\(id)\",\"name\":\"a.png\"}]}}"
            #expect(try await fixture.ask("POST", "/v1/jobs", json: input).status == 202)
            #expect(fixture.registry.exposition().contains("headway_gateway_uploaded_bytes_total 1008\n"))
            try await eventually("the count") { fixture.registry.exposition().contains("headway_gateway_served_bytes_total 1008\n") }
        }
    }

    @Test func rangesAndHeads() async throws {
        try await GatewayFixture.with { fixture in
            let bytes = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let client = try await fixture.connect()
            let path = try #require(try await client.ask("POST", "/v1/uploads?name=a.bin", body: bytes).header("location"))
            #expect(try await client.ask("GET", path).body == bytes)
            for (range, expected) in [("bytes=0-0", 0..<1), ("bytes=100-299999", 100..<300_000), ("bytes=-5", 299_995..<300_000)] {
                let part = try await client.ask("GET", path, headers: [("Range", range)])
                #expect(part.status == 206 && part.body == Array(bytes[expected]))
                #expect(part.header("content-range") == "bytes \(expected.lowerBound)-\(expected.upperBound - 1)/300000")
            }
            let behind = try await client.ask("GET", path, headers: [("Range", "bytes=400000-500000")])
            #expect(behind.status == 416 && behind.code == "range_not_satisfiable")
            let head = try await client.ask("HEAD", path)
            #expect(head.status == 200 && head.header("content-length") == "300000" && head.body.isEmpty)
            #expect(try await client.ask("GET", path, headers: [("Range", "lines=1-2")]).status == 200)
        }
    }

    @Test func whatIsNoImageIsNotTakenForOne() async throws {
        try await GatewayFixture.with { fixture in
            for (name, type, body, code) in [
                ("a.png", "application/octet-stream", Array("<svg onload=x>".utf8), "not_an_image"),
                ("a", "image/png", [1, 2, 3], "not_an_image"),
                ("a.jpg", "", Array(Self.png.prefix(3)), "not_an_image"), ("a.png", "image/png", [], "invalid_value"),
                ("a.txt", "", [], "invalid_value"),
            ] as [(String, String, [UInt8], String)] {
                let answer = try await fixture.ask("POST", "/v1/uploads?name=\(name)", headers: [("Content-Type", type)], body: body)
                #expect(answer.code == code, "\(name) \(type)")
                #expect(answer.status == (code == "not_an_image" ? 415 : 422))
            }
            #expect(try Disk.entries(fixture.dataDirectory + "/uploads").isEmpty && Disk.entries(fixture.dataDirectory + "/tmp").isEmpty)
            // Any image will do, whatever its name says: the generator looks for itself.
            #expect(try await fixture.ask("POST", "/v1/uploads?name=a.jpg", body: Self.png).status == 201)
        }
    }

    @Test func namesThatArePathsAreRefused() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            _ = try await fixture.submit("j")
            let lease = try await fixture.claim()
            for name in [
                "../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "..", ".", ".ssh", "a\0b", "a\nb", "\u{202e}gpj.exe",
                String(repeating: "x", count: 256),
            ] {
                let encoded = PercentEncoding.encode(name)
                let upload = try await fixture.ask("POST", "/v1/uploads?name=\(encoded)", body: [1])
                #expect(upload.status == 400 && upload.code == "invalid_name" && upload.text.contains("\"field\":\"name\""), "\(name)")
                let put = try await fixture.ask("PUT", "/v1/jobs/j/files/\(encoded)", headers: [("Headway-Fence", lease.fence)], body: [1])
                #expect(put.status == 400, "\(name)")
                #expect([400, 404].contains(try await client.ask("GET", "/v1/jobs/j/files/\(encoded)").status), "\(name)")
            }
            for id in ["..", "%2e%2e", "%2e%2e%2ftmp", "x", "%00"] {
                #expect(try await client.ask("GET", "/v1/uploads/\(id)").status == 404)
            }
            #expect(try Disk.entries(fixture.dataDirectory).sorted() == ["jobs", "tmp", "uploads"])
        }
    }

    @Test func filesHaveALimitHoweverTheyCome() async throws {
        try await GatewayFixture.with(.init { $0.limits.uploadBytes = 100_000 }) { fixture in
            let announced = try await fixture.connect()
            await announced.send("POST /v1/uploads?name=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100001\r\n\r\n")
            #expect(try await announced.response().code == "body_too_large")
            let chunked = try await fixture.connect()
            await chunked.send("POST /v1/uploads?name=a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in 0..<11 { await chunked.send("2710\r\n" + String(repeating: "x", count: 10_000) + "\r\n") }
            let answer = try await chunked.response()
            #expect(answer.status == 413 && answer.code == "body_too_large")
            #expect(try await fixture.ask("POST", "/v1/uploads?name=a", body: Array(repeating: 1, count: 100_000)).status == 201)
            try await eventually("no rest") { try Disk.entries(fixture.dataDirectory + "/tmp").isEmpty }
            #expect(try Disk.entries(fixture.dataDirectory + "/uploads").count == 1)
        }
    }

    @Test func aClientThatLeavesLeavesNothing() async throws {
        try await GatewayFixture.with { fixture in
            let client = try await fixture.connect()
            await client.send("POST /v1/uploads?name=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
            try await eventually("the unfinished file") { try Disk.entries(fixture.dataDirectory + "/tmp").count == 1 }
            await client.close()
            try await eventually("its removal") { try Disk.entries(fixture.dataDirectory + "/tmp").isEmpty }
            #expect(try Disk.entries(fixture.dataDirectory + "/uploads").isEmpty)
        }
    }

    @Test func onlySoManyAtOnce() async throws {
        try await GatewayFixture.with(.init { $0.limits.concurrentUploads = 2 }) { fixture in
            var open: [RawClient] = []
            for _ in 0..<2 {
                let client = try await fixture.connect()
                await client.send("POST /v1/uploads?name=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nabc")
                open.append(client)
            }
            try await eventually("both") { try Disk.entries(fixture.dataDirectory + "/tmp").count == 2 }
            let refused = try await fixture.ask("POST", "/v1/uploads?name=a", body: [1])
            #expect(refused.status == 429 && refused.code == "too_many_requests" && refused.header("retry-after") != nil)
            await open[0].send("d")
            #expect(try await open[0].response().status == 201)
            try await eventually("a place") { try await fixture.ask("POST", "/v1/uploads?name=a", body: [1]).status == 201 }
        }
    }

    @Test func aFullDiskIsAnAnswer() async throws {
        try await GatewayFixture.with(.init { $0.limits.freeDiskBytes = .max }) { fixture in
            let answer = try await fixture.ask("POST", "/v1/uploads?name=a", body: [1])
            #expect(answer.status == 507 && answer.code == "disk_full" && answer.header("retry-after") == "60")
        }
    }

    // MARK: Results

    @Test func onlyTheHolderOfTheLeaseDelivers() async throws {
        try await GatewayFixture.with { fixture in
            _ = try await fixture.submit("j")
            let lease = try await fixture.claim()
            let fence = [("Headway-Fence", lease.fence)]
            let put = try await fixture.ask("PUT", "/v1/jobs/j/files/m%20x.glb", headers: fence, body: [1, 2, 3])
            #expect(put.status == 201)
            #expect(
                put.text
                    == "{\"name\":\"m x.glb\",\"bytes\":3,\"content_type\":\"model/gltf-binary\",\"url\":\"/v1/jobs/j/files/m%20x.glb\"}"
            )
            #expect(try await fixture.ask("GET", "/v1/jobs/j/files/m%20x.glb").body == [1, 2, 3])
            for (headers, status, code) in [
                ([], 403, "not_allowed"), ([("Headway-Fence", "")], 403, "not_allowed"), ([("Headway-Fence", "1:999")], 409, "lease_lost"),
            ] as [([(String, String)], Int, String)] {
                let answer = try await fixture.ask("PUT", "/v1/jobs/j/files/m%20x.glb", headers: headers, body: [9])
                #expect(answer.status == status && answer.code == code)
            }
            #expect(try await fixture.ask("PUT", "/v1/jobs/absent/files/a", headers: fence, body: [1]).code == "job_not_found")
            _ = try await fixture.store.finish(lease, as: .complete, resultJSON: nil, stagesMs: [])
            #expect(try await fixture.ask("PUT", "/v1/jobs/j/files/late", headers: fence, body: [9]).code == "lease_lost")
            #expect(try await fixture.ask("GET", "/v1/jobs/j/files/m%20x.glb").body == [1, 2, 3])
            #expect(try await fixture.ask("GET", "/v1/jobs/j/files/late").code == "file_not_found")
        }
    }

    /// The lease is looked at again when the last byte is there.
    @Test func aLeaseLostOnTheWayKeepsTheFileOut() async throws {
        try await GatewayFixture.with { fixture in
            _ = try await fixture.submit("j")
            let lease = try await fixture.claim()
            let client = try await fixture.connect()
            await client.send(
                "PUT /v1/jobs/j/files/a HTTP/1.1\r\nHost: localhost\r\nHeadway-Fence: \(lease.fence)\r\nContent-Length: 4\r\n\r\nabc"
            )
            try await eventually("the unfinished file") { try Disk.entries(fixture.dataDirectory + "/tmp").count == 1 }
            _ = try await fixture.store.release(lease)
            _ = try await fixture.claim()
            await client.send("d")
            #expect(try await client.response().code == "lease_lost")
            #expect(try Disk.entries(fixture.dataDirectory + "/jobs").isEmpty && Disk.entries(fixture.dataDirectory + "/tmp").isEmpty)
        }
    }

    @Test func resultsBelongToTheJobsOwner() async throws {
        try await GatewayFixture.with { fixture in
            _ = try await fixture.submit("theirs", owner: Owner("acme/bob"))
            let lease = try await fixture.claim()
            #expect(
                try await fixture.ask("PUT", "/v1/jobs/theirs/files/a", headers: [("Headway-Fence", lease.fence)], body: [1]).status == 201
            )
            #expect(try await fixture.ask("GET", "/v1/jobs/theirs/files/a").code == "job_not_found")
        }
    }
}
