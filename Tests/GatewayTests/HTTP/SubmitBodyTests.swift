import JobStore
import NIOCore
import ProgressCore
import TestSupport
import Testing

@testable import Gateway

/// `POST /v1/jobs` takes exactly what it says; everything else is refused with a code and the path of the member.
@Suite(.timeLimit(.minutes(5))) struct SubmitBodyTests {
    private static let nowMs = 1_767_225_600_000

    private func parse(_ text: String) throws -> SubmitBody {
        try SubmitBody(ByteBuffer(string: text), limits: .init(), nowMs: Self.nowMs)
    }

    /// The smallest good body with further members.
    private static func body(_ members: String) -> String {
        "{\"queue\":\"gpu\",\"pipeline\":\"relief\"" + (members.isEmpty ? "" : ",") + members + "}"
    }

    private func refusal(_ text: String) -> (code: String, field: String?, message: String)? {
        do {
            _ = try parse(text)
            return nil
        } catch {
            guard let error = error as? GatewayError else { return ("?", nil, "\(error)") }
            return (error.code.rawValue, error.field, error.message)
        }
    }

    @Test func takesEveryMember() throws {
        let body = try parse(
            """
            {"queue":"gpu-24g","pipeline":"relief","params":{ "prompt" : "a\\u00e9", "n":1.50 ,"inputs":[{"upload":"abc","name":"p.jpg"}]},
             "id":"A.b_c:d-9","priority":9,"delay_ms":0,"expires_at":\(Self.nowMs + 1),"max_attempts":100,"max_runtime_ms":1,
             "ttl_ms":2592000000,"class":"large","cold":true,"plan":[{"stage":"mesh","units":50,"work":1.5,"declared_ms":3}]}
            """
        )
        #expect(body.queue == "gpu-24g" && body.pipeline == "relief" && body.id?.text == "A.b_c:d-9" && body.priority == 9)
        // The very bytes, white space and all.
        #expect(body.paramsJSON == "{ \"prompt\" : \"a\\u00e9\", \"n\":1.50 ,\"inputs\":[{\"upload\":\"abc\",\"name\":\"p.jpg\"}]}")
        #expect(body.inputs == [SubmitBody.Input(upload: "abc", name: "p.jpg", field: "params.inputs[0]")])
        #expect(body.delayMs == 0 && body.expiresAtMs == Self.nowMs + 1 && body.maxAttempts == 100 && body.maxRuntimeMs == 1)
        #expect(body.ttlMs == 2_592_000_000 && body.jobClass == "large" && body.isCold == true)
        #expect(body.planJSON == "[{\"stage\":\"mesh\",\"units\":50,\"work\":1.5,\"declared_ms\":3}]")
    }

    @Test func absentAndNullAreTheSame() throws {
        let least = try parse(Self.body(""))
        #expect(least.paramsJSON == "{}" && least.id == nil && least.inputs.isEmpty && least.planJSON == nil)
        let names = [
            "params", "id", "idempotency_key", "parent", "children", "prefer", "priority", "delay_ms", "expires_at", "max_attempts",
            "max_runtime_ms", "ttl_ms",
            "class", "cold", "plan",
        ]
        #expect(throws: Never.self) { try parse(Self.body(names.map { "\"\($0)\":null" }.joined(separator: ","))) }
        #expect(try parse(Self.body("\"idempotency_key\":\"k\"")).idempotencyKey == "k")
    }

    // MARK: The table

    private struct Case {
        let body: String
        let code: String
        let field: String?
    }

    private static let samples: [(kind: String, text: String)] = [
        ("object", "{\"a\":1}"), ("array", "[1]"), ("string", "\"x\""), ("number", "7"), ("number", "1.5"), ("boolean", "true"),
    ]

    private static let kinds: [(name: String, kind: String)] = [
        ("queue", "string"), ("pipeline", "string"), ("params", "object"), ("id", "string"), ("idempotency_key", "string"),
        ("priority", "number"), ("delay_ms", "number"), ("expires_at", "number"), ("max_attempts", "number"),
        ("max_runtime_ms", "number"), ("ttl_ms", "number"), ("class", "string"), ("cold", "boolean"), ("plan", "array"),
        ("parent", "string"), ("children", "number"), ("prefer", "string"),
    ]

    /// Each member with every type that it is not.
    private static var wrongTypes: [Case] {
        kinds.flatMap { member in
            samples.filter { $0.kind != member.kind }.map { sample in
                let others = [("queue", "\"gpu\""), ("pipeline", "\"relief\"")].filter { $0.0 != member.name }
                let members = (others.map { "\"\($0.0)\":\($0.1)" } + ["\"\(member.name)\":\(sample.text)"]).joined(separator: ",")
                return Case(body: "{\(members)}", code: "wrong_type", field: member.name)
            }
        }
    }

    /// Each number beside its range, and as what is no whole number.
    private static var wrongNumbers: [Case] {
        let ranges: [(String, Int, Int)] = [
            ("priority", 0, 9), ("delay_ms", 0, StoreLimits.longestMs), ("max_attempts", 1, 100),
            ("max_runtime_ms", 1, StoreLimits.longestMs),
            ("ttl_ms", 1, StoreLimits.longestMs), ("expires_at", 1, 1 << 52), ("children", 1, StoreLimits.children),
        ]
        return ranges.flatMap { name, low, high in
            ["\(low - 1)", "\(high + 1)", "-9223372036854775808", "9223372036854775808", "1e3", "1.0", "2.5", "-0.5", "1e400"].map {
                Case(body: body("\"\(name)\":\($0)"), code: "invalid_value", field: name)
            }
        }
    }

    private static var wrongTexts: [Case] {
        var cases: [Case] = []
        for id in [
            "", " ", "a b", "a/b", "a~1", "~", "parent~3", "é", "a\\u0000", "a\\n", "a\\\"", "{0}", "a*",
            String(repeating: "a", count: 129),
            "\\ud83d\\ude00", "a\\u007f", "a%20", "..~",
        ] { cases.append(Case(body: body("\"id\":\"\(id)\""), code: "invalid_value", field: "id")) }
        for queue in ["", "GPU", "gpu_1", "gpu 1", "é", "{0}", String(repeating: "q", count: 65), "a:b", "a.b", "gpu\\n"] {
            cases.append(Case(body: "{\"pipeline\":\"relief\",\"queue\":\"\(queue)\"}", code: "invalid_value", field: "queue"))
        }
        for name in ["class", "idempotency_key", "pipeline"] {
            for text in ["", "a\\u0000b", "a\\nb", "\\u007f", String(repeating: "k", count: 257), String(repeating: "é", count: 129)] {
                let others = name == "pipeline" ? "\"queue\":\"gpu\"" : "\"queue\":\"gpu\",\"pipeline\":\"relief\""
                cases.append(Case(body: "{\(others),\"\(name)\":\"\(text)\"}", code: "invalid_value", field: name))
            }
        }
        for parent in ["", "a b", "a~1", "~", "é", String(repeating: "a", count: 129)] {
            cases.append(Case(body: body("\"parent\":\"\(parent)\""), code: "invalid_value", field: "parent"))
        }
        for label in ["", "a b", "a/b", "a:b", "é", "a\\u0000", String(repeating: "l", count: 65)] {
            cases.append(Case(body: body("\"prefer\":\"\(label)\""), code: "invalid_value", field: "prefer"))
        }
        return cases
    }

    /// What cannot go together in a group and its children.
    private static var wrongFamilies: [Case] {
        let children = ["b", "b~1", "a~0", "a~01", "a~", "a", "a~1~2", "a~x"].map {
            Case(body: body("\"parent\":\"a\",\"id\":\"\($0)\""), code: "invalid_value", field: "id")
        }
        let ofWork = [
            ("priority", "1"), ("delay_ms", "1"), ("max_attempts", "1"), ("max_runtime_ms", "1"), ("cold", "true"), ("prefer", "\"x\""),
            ("plan", "[{\"stage\":\"a\"}]"),
        ]
        return children + ofWork.map { Case(body: "{\"children\":2,\"\($0.0)\":\($0.1)}", code: "invalid_value", field: $0.0) } + [
            Case(body: body("\"parent\":\"a\",\"children\":2"), code: "invalid_value", field: "children"),
            Case(body: body("\"parent\":\"a\",\"idempotency_key\":\"k\""), code: "invalid_value", field: "idempotency_key"),
            Case(body: body("\"id\":\"a~1\""), code: "invalid_value", field: "id"),
            Case(body: "{\"parent\":\"a\",\"pipeline\":\"relief\"}", code: "missing_field", field: "queue"),
            Case(body: "{\"parent\":\"a\",\"queue\":\"gpu\"}", code: "missing_field", field: "pipeline"),
        ]
    }

    @Test func aGroupNeedsNoQueueAndAChildNamesItsGroup() throws {
        let group = try parse("{\"children\":5}")
        #expect(group.children == 5 && group.queue.isEmpty && group.pipeline == "group" && group.paramsJSON == "{}")
        let named = try parse("{\"children\":1000,\"queue\":\"gpu\",\"pipeline\":\"comic\",\"params\":{\"a\":1},\"id\":\"book\"}")
        #expect(named.children == 1000 && named.pipeline == "comic" && named.id?.text == "book")
        let keyed = try parse("{\"children\":2,\"idempotency_key\":\"k\"}")
        #expect(keyed.idempotencyKey == "k")
        let child = try parse(Self.body("\"parent\":\"book\",\"prefer\":\"sdxl-1.0\""))
        #expect(child.parent?.text == "book" && child.id == nil && child.prefer == "sdxl-1.0")
        #expect(try parse(Self.body("\"id\":\"book~12\",\"parent\":\"book\"")).id?.childNumber == 12)
    }

    private static var wrongNames: [Case] {
        ["Queue", "queues", "param", "priority ", "", "__proto__", "fence", "owner", "seq", "v", "\\u0000", "webhook", "retry_of", "at"].map
        {
            Case(body: body("\"\($0)\":1"), code: "unknown_field", field: $0 == "\\u0000" ? "\0" : $0)
        } + [
            Case(
                body: body("\"\(String(repeating: "x", count: 1000))\":1"),
                code: "unknown_field",
                field: String(repeating: "x", count: 64)
            )
        ]
    }

    private static var wrongShapes: [Case] {
        let inputs: [(String, String, String)] = [
            ("1", "wrong_type", "params.inputs"), ("{}", "wrong_type", "params.inputs"), ("\"a\"", "wrong_type", "params.inputs"),
            ("[1]", "wrong_type", "params.inputs[0]"), ("[{\"upload\":\"a\",\"name\":\"b\"},null]", "wrong_type", "params.inputs[1]"),
            ("[{}]", "missing_field", "params.inputs[0]"), ("[{\"upload\":\"a\"}]", "missing_field", "params.inputs[0]"),
            ("[{\"upload\":1,\"name\":\"b\"}]", "missing_field", "params.inputs[0]"),
            ("[{\"upload\":\"\",\"name\":\"b\"}]", "missing_field", "params.inputs[0]"),
            ("[{\"upload\":\"a\",\"name\":\"b\"},{\"upload\":\"c\",\"name\":\"b\"}]", "invalid_value", "params.inputs[1]"),
            (
                "["
                    + Array(repeating: "{\"upload\":\"a\",\"name\":\"NN\"}", count: 40).enumerated().map { $1.replacingName($0) }.joined(
                        separator: ","
                    ) + "]",
                "invalid_value", "params.inputs"
            ),
        ]
        let badNames = ["../x", "a/b", "/etc/passwd", "a\\\\b", "..", ".", ".hidden", "", "a\\u0000", "a\\nb", "\\u202egpj.exe"]
        let plans: [(String, String, String)] = [
            ("[1]", "wrong_type", "plan[0]"), ("[{}]", "missing_field", "plan[0].stage"),
            ("[{\"stage\":1}]", "wrong_type", "plan[0].stage"),
            ("[{\"stage\":\"\"}]", "missing_field", "plan[0].stage"),
            ("[{\"stage\":\"a\",\"units\":\"1\"}]", "wrong_type", "plan[0].units"),
            ("[{\"stage\":\"a\",\"units\":0}]", "invalid_value", "plan[0].units"),
            ("[{\"stage\":\"a\",\"work\":-1}]", "invalid_value", "plan[0].work"),
            ("[{\"stage\":\"a\",\"work\":1e10}]", "invalid_value", "plan[0].work"),
            ("[{\"stage\":\"a\",\"work\":1e400}]", "invalid_value", "plan[0].work"),
            ("[{\"stage\":\"a\",\"x\":1}]", "unknown_field", "plan[0].x"),
            ("[" + Array(repeating: "{\"stage\":\"a\"}", count: 65).joined(separator: ",") + "]", "invalid_value", "plan"),
            ("[{\"stage\":\"" + String(repeating: "a", count: 17_000) + "\"}]", "body_too_large", "plan"),
        ]
        return inputs.map { Case(body: body("\"params\":{\"inputs\":\($0.0)}"), code: $0.1, field: $0.2) }
            + badNames.map { name in
                Case(
                    body: body("\"params\":{\"inputs\":[{\"upload\":\"a\",\"name\":\"\(name)\"}]}"),
                    code: "invalid_name",
                    field: "params.inputs[0]"
                )
            } + plans.map { Case(body: body("\"plan\":\($0.0)"), code: $0.1, field: $0.2) }
            + [
                Case(body: body("\"params\":{\"a\":1,\"a\":2}"), code: "invalid_value", field: "params.a"),
                Case(body: body("\"params\":{\"inputs\":[],\"inputs\":[]}"), code: "invalid_value", field: "params.inputs"),
                Case(body: body("\"priority\":1,\"priority\":1"), code: "invalid_value", field: "priority"),
                Case(body: body("\"queue\":\"gpu\""), code: "invalid_value", field: "queue"),
                Case(body: "{}", code: "missing_field", field: "queue"),
                Case(body: "{\"pipeline\":\"relief\"}", code: "missing_field", field: "queue"),
                Case(body: "{\"queue\":null,\"pipeline\":\"relief\"}", code: "missing_field", field: "queue"),
                Case(body: "{\"queue\":\"gpu\"}", code: "missing_field", field: "pipeline"),
                Case(body: body("\"id\":\"a\",\"idempotency_key\":\"b\""), code: "invalid_value", field: "idempotency_key"),
                Case(body: body("\"expires_at\":\(nowMs)"), code: "invalid_value", field: "expires_at"),
                Case(body: body("\"expires_at\":\(nowMs + 999),\"delay_ms\":1000"), code: "invalid_value", field: "expires_at"),
                Case(
                    body: body("\"params\":{\"a\":\"" + String(repeating: "x", count: StoreLimits.paramsBytes) + "\"}"),
                    code: "body_too_large",
                    field: "params"
                ),
            ]
    }

    private static var notJSON: [Case] {
        [
            "", " ", "{", "null", "[]", "\"x\"", "1", "queue=gpu&pipeline=relief", "<xml/>", "{\"queue\":\"gpu\",}", "{'queue':'gpu'}",
            "{\"queue\":\"\u{1}\"}", "{} {}", "\u{feff}{}",
            "{\"a\":" + String(repeating: "[", count: 100) + String(repeating: "]", count: 100) + "}",
        ].map { text in
            Case(body: text, code: ["null", "[]", "\"x\"", "1"].contains(text) ? "wrong_type" : "malformed_json", field: nil)
        }
    }

    @Test func everythingElseIsRefusedByName() {
        let cases =
            Self.wrongTypes + Self.wrongNumbers + Self.wrongTexts + Self.wrongNames + Self.wrongShapes + Self.wrongFamilies
            + Self.notJSON
        #expect(cases.count > 260)
        for test in cases {
            let shown = test.body.prefix(120)
            guard let refusal = refusal(test.body) else {
                Issue.record("taken: \(shown)")
                continue
            }
            #expect(refusal.code == test.code, "\(shown): \(refusal)")
            #expect(refusal.field == test.field, "\(shown): \(refusal)")
            #expect(!refusal.message.isEmpty && refusal.message.utf8.count < 400, "\(shown): \(refusal)")
            if let field = test.field, !field.isEmpty, !field.contains(where: { $0.isNewline }) {
                #expect(refusal.message.contains(field), "the message does not name \(field): \(refusal.message)")
            }
        }
    }

    @Test func mutatedBodiesNeverCrash() {
        var generator = SeededGenerator(seed: 77)
        let good = Array(
            Self.body(
                "\"params\":{\"inputs\":[{\"upload\":\"abc\",\"name\":\"p.jpg\"}],\"x\":[1,{\"y\":null}]},\"id\":\"abc\",\"priority\":3,\"cold\":false,"
                    + "\"plan\":[{\"stage\":\"a\",\"units\":3}],\"delay_ms\":10"
            ).utf8
        )
        for _ in 0..<10_000 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let index = Int.random(in: 0..<bytes.count, using: &generator)
                if generator.chance(50) { bytes[index] = UInt8.random(in: 0...255, using: &generator) } else { bytes.remove(at: index) }
            }
            guard let body = try? SubmitBody(ByteBuffer(bytes: bytes), limits: .init(), nowMs: Self.nowMs) else { continue }
            #expect(StoreLimits.isQueueName(body.queue) && body.paramsJSON.first == "{" && body.paramsJSON.last == "}")
        }
    }
}

extension String {
    fileprivate func replacingName(_ index: Int) -> String {
        split(separator: "NN", maxSplits: 1).joined(separator: "f\(index)")
    }
}
