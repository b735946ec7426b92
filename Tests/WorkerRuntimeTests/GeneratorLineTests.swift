import FoundationEssentials
import ProgressCore
import TestSupport
import Testing

@testable import WorkerRuntime

@Suite(.timeLimit(.minutes(5))) struct GeneratorLineTests {
    private static func line(_ text: String) -> GeneratorLine? { GeneratorLine(Array(text.utf8)) }

    @Test func readsWhatTheProtocolHas() throws {
        let tick = try #require(
            Self.line(#" {"stage":"shape_generation","step":21,"steps":50.0,"item":1,"items":4,"percent":4.2e1,"message":"hé\u0301\n"} "#)
        )
        #expect(
            tick.update
                == ProgressUpdate(stage: "shape_generation", step: 21, steps: 50, percent: 42, item: 1, items: 4, message: "hé\u{301}\n")
        )
        #expect(Self.line(#"{"log":"a \"b\" \\ \ud83d\ude00"}"#)?.log == "a \"b\" \\ 😀")
        #expect(Self.line(#"{"preview":"a.png"}"#)?.preview == "a.png")
        #expect(Self.line(#"{"result":{"n": [1, {"x":null}] }}"#)?.resultJSON == #"{"n": [1, {"x":null}] }"#)
        #expect(
            Self.line(#"{"plan":[{"stage":"a","units":3,"work":1.5},{"stage":"b","declared_ms":10},{"units":1},7]}"#)?.plan == [
                PlannedStage(name: "a", units: 3, work: 1.5), PlannedStage(name: "b", declaredMs: 10),
            ]
        )
        #expect(
            Self.line(#"{"error":{"code":"no_vram","message":"24 GB needed","recoverable":false}}"#)?.error
                == BackendError(code: "no_vram", message: "24 GB needed", isRecoverable: false)
        )
        let hints = try #require(Self.line(#"{"class":"a100","cold":true,"items":4}"#))
        #expect(hints.jobClass == "a100" && hints.isCold == true && hints.update?.items == 4)
        let odd = try #require(Self.line(#"{"class":"","cold":1}"#))
        #expect(odd.jobClass == nil && odd.isCold == nil)
        #expect(Self.line("{\"class\":\"\(String(repeating: "x", count: 129))\"}")?.jobClass == nil)
        #expect(Self.line(#"{"error":"bad"}"#)?.error == BackendError(code: "generator_failed", message: "bad", isRecoverable: true))
        #expect(Self.line(#"{"error":{"code":"Bad Code"}}"#)?.error?.code == "generator_failed")
    }

    @Test func ignoresWhatItDoesNotUnderstand() throws {
        let line = try #require(Self.line(#"{"stage":7,"step":"x","steps":null,"percent":[],"result":[1],"x":{"y":[true,false]}}"#))
        #expect(line.update == nil)
        #expect(line.resultJSON == nil)
        #expect(Self.line(#"{"step":1e300}"#)?.update?.step == 9_000_000_000_000_000)
        #expect(Self.line("{}") != nil)
    }

    @Test(arguments: [
        "", " ", "null", "[]", "7", "\"x\"", "{", "}", "{}x", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{\"a\":01}", "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":+1}", "{\"a\":NaN}", "{\"a\":Infinity}", "{'a':1}", "{\"a\":tru}", "{\"a\":\"\u{1}\"}", "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"", "{\"a\":[1 2]}", "{\"a\":[1,]}", "{\"a\" 1}", "{\"a\":-}", "{\"a\":1e}", "Traceback (most recent call last):",
    ])
    func refusesWhatIsNoObject(text: String) {
        #expect(Self.line(text) == nil)
    }

    @Test func refusesWhatIsNotUTF8AndWhatIsTooDeep() {
        #expect(GeneratorLine(Array("{\"a\":\"".utf8) + [0xff, 0x22, 0x7d]) == nil)
        let deep = String(repeating: "[", count: 63) + String(repeating: "]", count: 63)
        #expect(Self.line("{\"a\":\(deep)}") != nil)
        #expect(Self.line("{\"a\":[\(deep)]}") == nil)
        #expect(Self.line("{\"a\":" + String(repeating: "[", count: 30_000)) == nil)
    }

    /// Random JSON and random damage to it: accepted exactly when the system's parser accepts it (as an object). Left out
    /// are halves of surrogate pairs and numbers beyond a double: the grammar allows both, the system's parser neither.
    @Test func agreesWithTheSystemsParser() {
        for seed in 0..<4000 {
            var random = SeededGenerator(seed)
            var bytes = Array(Self.json(&random, depth: 0).utf8)
            if random.chance(60), !bytes.isEmpty {
                let index = Int.random(in: 0..<bytes.count, using: &random)
                if random.chance(50) {
                    bytes[index] = random.pick(Array("{}[]\",:\\ 0123456789-+.eEtrufalsn".utf8))
                } else {
                    bytes.remove(at: index)
                }
            }
            let reference = (try? JSONDecoder().decode([String: AnyJSON].self, from: Data(bytes))) != nil
            let ours = GeneratorLine(bytes) != nil
            if ours != reference {
                let text = String(decoding: bytes, as: UTF8.self)
                Issue.record("seed \(seed): ours \(ours), system \(reference): \(text)")
            }
        }
    }

    private struct AnyJSON: Decodable {
        init(from decoder: any Decoder) throws {
            if let list = try? decoder.unkeyedContainer() {
                var list = list
                while !list.isAtEnd { _ = try list.decode(AnyJSON.self) }
            } else if let object = try? decoder.container(keyedBy: Key.self) {
                for key in object.allKeys { _ = try object.decode(AnyJSON.self, forKey: key) }
            } else {
                // The system's parser looks at numbers and escapes only when they are asked for.
                let value = try decoder.singleValueContainer()
                if value.decodeNil() || (try? value.decode(Bool.self)) != nil || (try? value.decode(Double.self)) != nil { return }
                _ = try value.decode(String.self)
            }
        }
        private struct Key: CodingKey {
            let stringValue: String
            var intValue: Int? { nil }
            init?(stringValue: String) { self.stringValue = stringValue }
            init?(intValue: Int) { nil }
        }
    }

    private static func json(_ random: inout SeededGenerator, depth: Int) -> String {
        let space = random.pick(["", "", " "])
        switch depth == 0 ? 0 : Int.random(in: 0...(depth < 4 ? 5 : 3), using: &random) {
        case 0, 4:
            let members = (0..<Int.random(in: 0...3, using: &random)).map { index in
                #""k\#(index)":"# + space + json(&random, depth: depth + 1)
            }
            return "{" + members.joined(separator: "," + space) + "}"
        case 1: return random.pick(["0", "-1", "21", "3.5", "1e3", "-0.25E-2", "90071"])
        case 2: return random.pick(["true", "false", "null"])
        case 3: return random.pick([#""""#, #""text""#, #""\u00e4\n""#, "\"grün\""])
        default:
            let elements = (0..<Int.random(in: 0...3, using: &random)).map { _ in json(&random, depth: depth + 1) }
            return "[" + elements.joined(separator: "," + space) + "]"
        }
    }
}
