import JobStore
import ProgressCore
import TestSupport
import Testing

/// What people and programs send by mistake or on purpose: a typed answer that names what to change, and a gateway that lives on.
@Suite(.serialized, .timeLimit(.minutes(5))) struct BadInputTests {
    @Test func everyBadSubmitIsRefusedByName() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            let big = String(repeating: "x", count: 300 * 1024)
            let cases: [(body: String, status: Int, code: String, names: String)] = [
                ("", 400, "malformed_json", "JSON"), ("{", 400, "malformed_json", "byte"), ("nonsense", 400, "malformed_json", "byte"),
                ("[]", 422, "wrong_type", "object"), ("{}", 422, "missing_field", "queue"),
                (#"{"queue":"gpu"}"#, 422, "missing_field", "pipeline"),
                (#"{"queue":"nobody","pipeline":"generic"}"#, 404, "unknown_queue", "nobody"),
                (#"{"queue":"gpu","pipeline":"nothing"}"#, 404, "unknown_pipeline", "nothing"),
                (#"{"queue":"GPU!","pipeline":"generic"}"#, 422, "invalid_value", "queue"),
                (#"{"queue":7,"pipeline":"generic"}"#, 422, "wrong_type", "queue"),
                (#"{"queue":"gpu","pipeline":"generic","params":[]}"#, 422, "wrong_type", "params"),
                (#"{"queue":"gpu","pipeline":"generic","params":{"x":"\#(big)"}}"#, 413, "body_too_large", "params"),
                (#"{"queue":"gpu","pipeline":"generic","id":"a/b"}"#, 422, "invalid_value", "id"),
                (#"{"queue":"gpu","pipeline":"generic","id":"a~1"}"#, 422, "invalid_value", "id"),
                (#"{"queue":"gpu","pipeline":"generic","id":"x","idempotency_key":"y"}"#, 422, "invalid_value", "idempotency_key"),
                (#"{"queue":"gpu","pipeline":"generic","priority":11}"#, 422, "invalid_value", "priority"),
                (#"{"queue":"gpu","pipeline":"generic","priority":1.5}"#, 422, "invalid_value", "priority"),
                (#"{"queue":"gpu","pipeline":"generic","prio":1}"#, 422, "unknown_field", "prio"),
                (#"{"queue":"gpu","queue":"gpu","pipeline":"generic"}"#, 422, "invalid_value", "queue"),
                (
                    #"{"queue":"gpu","pipeline":"generic","params":{"inputs":[{"upload":"../../etc","name":"a"}]}}"#, 404,
                    "upload_not_found", "inputs[0]"
                ),
                (
                    #"{"queue":"gpu","pipeline":"generic","params":{"inputs":[{"upload":"x","name":"../a"}]}}"#, 400, "invalid_name",
                    "inputs[0]"
                ),
                (String(repeating: "[", count: 100_000), 400, "malformed_json", "byte"),
            ]
            for (body, status, code, names) in cases {
                let answer = try await HTTPText.post(gateway.port, "/v1/jobs", body)
                #expect(answer.status == status, "\(body.prefix(80)) -> \(answer.status) \(answer.body.prefix(200))")
                #expect(
                    answer.body.contains("\"code\":\"\(code)\"") && answer.body.contains(names),
                    "\(body.prefix(80)) -> \(answer.body.prefix(200))"
                )
            }
            let form = try await HTTPText.post(gateway.port, "/v1/jobs", "queue=gpu", contentType: "application/x-www-form-urlencoded")
            #expect(form.status == 415)
            let accepted = try await HTTPText.post(gateway.port, "/v1/jobs", #"{"queue":"gpu","pipeline":"generic","id":"x"}"#)
            #expect(accepted.status == 202)
            let again = try await HTTPText.post(gateway.port, "/v1/jobs", #"{"queue":"gpu","pipeline":"generic","id":"x"}"#)
            #expect(again.status == 200)
            let other = try await HTTPText.post(
                gateway.port,
                "/v1/jobs",
                #"{"queue":"gpu","pipeline":"generic","id":"x","params":{"a":1}}"#
            )
            #expect(other.status == 409)
            #expect(try await deployment.store.queues().first?.ready == 1, "only the good one is in the line")
        }
    }

    @Test func filesAreCheckedAndKeptInTheirPlace() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            let cases = [
                ("/v1/uploads?name=photo.jpg", "image/jpeg", "no image at all, really", 415),
                ("/v1/uploads?name=..%2F..%2Fetc%2Fpasswd", "text/plain", "x", 400), ("/v1/uploads?name=.hidden", "text/plain", "x", 400),
                ("/v1/uploads?name=a%00b", "text/plain", "x", 400), ("/v1/uploads?name=empty.txt", "text/plain", "", 422),
                ("/v1/uploads?name=notes.txt", "text/plain", "hello", 201),
            ]
            for (path, type, body, status) in cases {
                let answer = try await HTTPText.post(gateway.port, path, body, contentType: type)
                #expect(answer.status == status, "\(path) -> \(answer.status) \(answer.body)")
            }
            let huge = "POST /v1/uploads?name=a.bin HTTP/1.1\r\nhost: 127.0.0.1:\(gateway.port)\r\ncontent-length: 99999999999\r\n\r\nabc"
            #expect(try await HTTPText.send(gateway.port, huge).status == 413)
            #expect(try await HTTPText.get(gateway.port, "/v1/uploads/..%2F..%2Fetc%2Fpasswd").status == 404)
            _ = try await deployment.submit("a")
            #expect(try await HTTPText.get(gateway.port, "/v1/jobs/a/files/..%2F..%2Fsecret").status == 400)
            #expect(try await HTTPText.get(gateway.port, "/v1/jobs/a/files/none.glb").status == 404)
            let stranger =
                "PUT /v1/jobs/a/files/x.glb HTTP/1.1\r\nhost: 127.0.0.1:\(gateway.port)\r\nconnection: close\r\nheadway-fence: 1:1\r\n"
                + "content-length: 1\r\n\r\nx"
            #expect(try await HTTPText.send(gateway.port, stranger).status == 409, "only the owner of the lease delivers")
        }
    }

    @Test func hostileBytesNeverEndTheGateway() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            var random = SystemRandomNumberGenerator()
            let starts = [
                "GET / HTTP/1.1\r\n", "POST /v1/jobs HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
                "GET /v1/ws HTTP/1.1\r\nupgrade: websocket\r\n\r\n", "\u{0}\u{1}", "",
            ]
            for number in 0..<200 {
                var text = starts[number % starts.count]
                for _ in 0..<Int.random(in: 0..<200, using: &random) {
                    text.unicodeScalars.append(Unicode.Scalar(UInt8.random(in: 0...255, using: &random)))
                }
                // Connections that would wait for more are given an end by their own header.
                _ = try await HTTPText.send(gateway.port, text + "\r\n\r\n\u{0}bad\r\n\r\n")
            }
            let headers = String(repeating: "x-filler: \(String(repeating: "y", count: 1000))\r\n", count: 200)
            #expect([400, 431].contains(try await HTTPText.get(gateway.port, "/", headers: headers).status))
            #expect(try await HTTPText.get(gateway.port, "/" + String(repeating: "a", count: 60_000)).status >= 400)
            #expect(
                try await HTTPText.send(gateway.port, "GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").status == 421
            )
            let foreign = try await HTTPText.get(gateway.port, "/v1/queues", headers: "origin: https://evil.example\r\n")
            #expect(foreign.status == 403)
            #expect(try await HTTPText.get(gateway.port, "/livez").status == 200)
            #expect(gateway.process.process.isRunning)
        }
    }

    @Test func tooManyJobsOnOneConnectionAreRefusedOneByOne() async throws {
        try await Deployment.with { deployment in
            let gateway = try await deployment.gateway()
            let client = try await WebSocketClient.connect(port: gateway.port)
            for batch in 0..<60 {
                let jobs = (0..<170).map { "\"job-\(batch * 170 + $0)\"" }.joined(separator: ",")
                try await client.send("{\"op\":\"watch\",\"jobs\":[\(jobs)],\"id\":\(batch)}")
            }
            _ = try await client.next(within: .seconds(20)) { $0.text.contains("\"id\":59") || $0.type == "error" }
            try await eventually(within: .seconds(20), "a refusal that says why") {
                client.events.contains { $0.text.contains("too_many") } || client.closeCode != nil
            }
            #expect(try await HTTPText.get(gateway.port, "/livez").status == 200)
        }
    }
}
