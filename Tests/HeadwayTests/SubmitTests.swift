import ArgumentParser
import Testing

@testable import headway

struct SubmitTests {
    private func request(_ flags: [SettingsReader.Flag]) throws -> SubmitRequest {
        try SubmitRequest(SettingsReader(flags: flags + [.init(Settings.submitQueue, "gpu")], environment: [:], file: nil))
    }

    @Test func paramsPassThroughUnchanged() throws {
        let params = #"{ "big": 12345678901234567890, "x":1.10, "t":"é\u00e9" }"#
        let json = try request([.init(Settings.submitParams, params)]).json(uploads: [], idempotencyKey: "k")
        #expect(json == #"{"queue":"gpu","pipeline":"generic","idempotency_key":"k","params":\#(params)}"#)
    }

    @Test func uploadsBecomeInputs() throws {
        let upload = GatewayClient.Upload(upload: "u1", name: "a \"b\".jpg")
        let inputs = #""inputs":[{"upload":"u1","name":"a \"b\".jpg"}]"#
        #expect(try request([]).json(uploads: [upload], idempotencyKey: nil).hasSuffix(#""params":{\#(inputs)}}"#))
        #expect(
            try request([.init(Settings.submitParams, #" {"x":1}"#)]).json(uploads: [upload], idempotencyKey: nil)
                .hasSuffix(#""params":{\#(inputs),"x":1}}"#)
        )
    }

    @Test func anIDReplacesTheIdempotencyKey() throws {
        let json = try request([.init(Settings.submitID, "J-1"), .init(Settings.submitPriority, "3")]).json(
            uploads: [],
            idempotencyKey: "k"
        )
        #expect(json == #"{"queue":"gpu","pipeline":"generic","id":"J-1","priority":3,"params":{}}"#)
    }

    @Test(arguments: [
        ("[]", "not a JSON object"), ("{", "not a JSON object"), ("{\"a\":}", "not a JSON object"), ("5", "not a JSON object"),
        ("@/nonexistent/params.json", "/nonexistent/params.json: No such file"),
    ])
    func badParamsAreRefused(_ params: String, _ expected: String) {
        #expect { _ = try request([.init(Settings.submitParams, params)]) } throws: { "\($0)".contains(expected) }
    }

    @Test(arguments: ["", "a b", "a/b", "a~1", "é", String(repeating: "x", count: 129)])
    func badIDsAreRefused(_ id: String) {
        #expect(throws: CommandError.self) { try request([.init(Settings.submitID, id)]) }
    }

    @Test func absentInputsAreRefusedBeforeAnythingIsSent() {
        #expect { _ = try request([.init(Settings.submitInputs, ["/nonexistent.jpg"])]) } throws: { "\($0)".contains("/nonexistent.jpg") }
        #expect { _ = try request([.init(Settings.submitInputs, ["/tmp"])]) } throws: { "\($0)".contains("not a regular file") }
    }

    @Test func watchedJobsAreCheckedAndCounted() throws {
        #expect(try WatchCommand.checked(["a", "b", "a"]) == ["a", "b"])
        #expect(throws: CommandError.self) { try WatchCommand.checked(["a b"]) }
        #expect(throws: CommandError.self) { try WatchCommand.checked((0...Limits.watchedJobs).map { "j\($0)" }) }
    }

    @Test func namesAreEscapedInAddresses() {
        #expect(GatewayClient.percentEncoded("a b/é?#.jpg") == "a%20b%2F%C3%A9%3F%23.jpg")
        #expect(GatewayClient.contentType(ofName: "X.JPG") == "image/jpeg")
        #expect(GatewayClient.contentType(ofName: "x") == "application/octet-stream")
    }
}
