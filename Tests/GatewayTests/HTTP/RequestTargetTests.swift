import NIOHTTP1
import Telemetry
import TestSupport
import Testing

@testable import Gateway

@Suite(.timeLimit(.minutes(5))) struct RequestTargetTests {
    private func parse(_ text: String) throws -> RequestTarget { try RequestTarget(text, limits: .init()) }

    @Test func splitsAndDecodes() throws {
        #expect(try parse("/").segments == [])
        #expect(try parse("/v1/jobs").segments == ["v1", "jobs"])
        #expect(try parse("/v1/jobs/").segments == ["v1", "jobs", ""])
        #expect(try parse("//").segments == ["", ""])
        #expect(try parse("/a%2Fb/c%20d/%C3%A9").segments == ["a/b", "c d", "é"])
        #expect(try parse("/a+b").segments == ["a+b"])
        #expect(try parse("/..%2f..%2fetc").segments == ["../../etc"])
        #expect(
            try parse("/x?a=1&b&=c&d=e%3Df&g=h+i&j=%2B").query.map { "\($0.name)|\($0.value)" } == [
                "a|1", "b|", "|c", "d|e=f", "g|h i", "j|+",
            ]
        )
        #expect(try parse("/x?job=A&job=B").query.map(\.value) == ["A", "B"])
        #expect(try parse("/x#y?z").segments == ["x"])
        #expect(try parse("/x#y?z").query.isEmpty)
        let absolute = try parse("http://Example.org:80/v1/jobs?x=1")
        #expect(absolute.authority == "Example.org:80" && absolute.segments == ["v1", "jobs"] && absolute.query.count == 1)
        #expect(try parse("https://a").segments == [])
        #expect(try parse("HTTP://a?x").query.count == 1)
    }

    @Test(arguments: [
        "", "x", "*", "?a", "%2f", "/%", "/%4", "/%zz", "/%ff", "/%c3%28", "/a b", "/\u{e9}", "/x?%ff=1", "/x?a=%", "ftp://a/b",
    ])
    func refuses(_ text: String) {
        #expect(code { try parse(text) } == .badRequest)
    }

    @Test func boundsItsSizes() throws {
        var limits = GatewayLimits()
        limits.targetBytes = 20
        limits.queryParameters = 2
        let bounded = limits
        #expect(code { try RequestTarget("/" + String(repeating: "a", count: 20), limits: bounded) } == .uriTooLong)
        #expect(code { try RequestTarget("/x?a&b&c", limits: bounded) } == .badRequest)
        #expect(throws: Never.self) { try RequestTarget("/x?a&b", limits: bounded) }
    }

    @Test func hostileTargetsNeverCrash() {
        var generator = SeededGenerator(seed: 11)
        let alphabet = Array("/%?&=+#.abc0123456789fF:@[]\u{7f}\u{1}é".unicodeScalars)
        for _ in 0..<20_000 {
            var text = generator.chance(80) ? "/" : ""
            for _ in 0..<Int.random(in: 0...24, using: &generator) {
                if let scalar = alphabet.randomElement(using: &generator) { text.unicodeScalars.append(scalar) }
            }
            guard let target = try? parse(text) else { continue }
            // What was decoded is UTF-8 and survives another round.
            let again = "/" + target.segments.map(PercentEncoding.encode).joined(separator: "/")
            #expect((try? parse(again))?.segments == target.segments)
        }
    }

    @Test func theTableMatchesMethodsAndParameters() {
        let registry = MetricsRegistry()
        let action = RouteAction.immediate { _ in .text("") }
        let router = Router([
            Route(.GET, "/", registry: registry, action), Route(.GET, "/v1/jobs/{job}", registry: registry, action),
            Route(.POST, "/v1/jobs", registry: registry, action), Route(.GET, "/v1/jobs/{job}/files/{name}", registry: registry, action),
            Route(.PUT, "/v1/jobs/{job}/files/{name}", registry: registry, action),
            Route(.GET, "/v1/events", registry: registry, .session { _ in .answer(.text("")) }),
        ])
        func found(_ method: HTTPMethod, _ path: String) -> String {
            guard let segments = try? parse(path).segments else { return "bad" }
            switch router.match(method, segments) {
            case .route(let route, let parameters):
                return "\(route.method.rawValue) \(route.pattern) \(parameters.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" })"
            case .methodNotAllowed(let allow): return "allow \(allow)"
            case .notFound: return "none"
            }
        }
        #expect(found(.GET, "/") == "GET / []")
        #expect(found(.HEAD, "/") == "GET / []")
        #expect(found(.GET, "/v1/jobs/a%2Fb") == "GET /v1/jobs/{job} [\"job=a/b\"]")
        #expect(found(.PUT, "/v1/jobs/j/files/a.glb") == "PUT /v1/jobs/{job}/files/{name} [\"job=j\", \"name=a.glb\"]")
        #expect(found(.DELETE, "/v1/jobs/j/files/a.glb") == "allow GET, HEAD, PUT, OPTIONS")
        #expect(found(.GET, "/v1/jobs") == "allow POST, OPTIONS")
        #expect(found(.HEAD, "/v1/events") == "allow GET, OPTIONS")
        #expect(found(.GET, "/v1/jobs/a/b") == "none")
        #expect(found(.GET, "/V1/jobs/a") == "none")
        #expect(found(.GET, "/v1/jobs/a/") == "none")
        // An empty parameter matches, so that the route can say what an id looks like.
        #expect(found(.GET, "/v1/jobs/") == "GET /v1/jobs/{job} [\"job=\"]")
    }
}

/// The code of the `GatewayError` that `body` throws.
func code(_ body: () throws -> some Any) -> GatewayError.Code? {
    do {
        _ = try body()
        return nil
    } catch {
        return (error as? GatewayError)?.code
    }
}
