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

    @Test func aGroupNeedsNoQueueAndItsChildrenNameIt() throws {
        func json(_ flags: [SettingsReader.Flag]) throws -> String {
            try SubmitRequest(SettingsReader(flags: flags, environment: [:], file: nil)).json(uploads: [], idempotencyKey: "k")
        }
        #expect(try json([.init(Settings.submitChildren, "3")]) == #"{"children":3,"idempotency_key":"k","params":{}}"#)
        #expect(
            try json([.init(Settings.submitQueue, "gpu"), .init(Settings.submitParent, "G"), .init(Settings.submitPrefer, "sdxl")])
                == #"{"queue":"gpu","pipeline":"generic","parent":"G","prefer":"sdxl","params":{}}"#
        )
        #expect(
            try json([.init(Settings.submitQueue, "gpu"), .init(Settings.submitParent, "G"), .init(Settings.submitID, "G~2")])
                == #"{"queue":"gpu","pipeline":"generic","parent":"G","id":"G~2","params":{}}"#
        )
    }

    @Test func classAndTemperatureAreHandedOn() throws {
        let json = try request([.init(Settings.submitClass, "a\"100"), .init(Settings.submitCold, true), .init(Settings.submitID, "J")])
            .json(uploads: [], idempotencyKey: nil)
        #expect(json == #"{"queue":"gpu","pipeline":"generic","class":"a\"100","cold":true,"id":"J","params":{}}"#)
    }

    @Test func familiesThatCannotBeAreRefused() {
        let wrong: [([SettingsReader.Flag], String)] = [
            ([.init(Settings.submitChildren, "3"), .init(Settings.submitParent, "G")], "exclude each other"),
            ([.init(Settings.submitChildren, "3"), .init(Settings.submitPriority, "9")], "to its children"),
            ([.init(Settings.submitChildren, "0")], "--children"),
            ([.init(Settings.submitParent, "G~1")], "is no group"),
            ([.init(Settings.submitParent, "G"), .init(Settings.submitID, "H~1")], "no child of G"),
            ([.init(Settings.submitID, "H~1")], "give --parent H too"),
            ([.init(Settings.submitPrefer, "a b")], "--prefer"),
            ([.init(Settings.submitClass, String(repeating: "x", count: 129))], "--class"),
            ([.init(Settings.submitChildren, "3"), .init(Settings.submitClass, "x")], "to its children"),
        ]
        for (flags, expected) in wrong {
            #expect { _ = try request(flags) } throws: { "\($0)".contains(expected) }
        }
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
