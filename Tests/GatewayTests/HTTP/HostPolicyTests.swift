import NIOHTTP1
import Testing

@testable import Gateway

/// Who may talk to a gateway on loopback, and to one that is not.
@Suite(.timeLimit(.minutes(5))) struct HostPolicyTests {
    private func check(
        _ policy: HostPolicy,
        host: String?,
        origin: String? = nil,
        extra: [(String, String)] = [],
        authority: String? = nil,
        minor: Int = 1
    ) -> String {
        var headers = HTTPHeaders(extra)
        if let host { headers.add(name: "Host", value: host) }
        if let origin { headers.add(name: "Origin", value: origin) }
        let head = HTTPRequestHead(version: .init(major: 1, minor: minor), method: .GET, uri: "/", headers: headers)
        do {
            return try policy.check(head, authority: authority).map { "foreign \($0)" } ?? "ok"
        } catch {
            return error.code.rawValue
        }
    }

    private let loopback = HostPolicy(isLoopback: true, allowedHosts: ["dev.example"], allowedOrigins: ["https://App.example"])

    @Test(arguments: [
        "localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "127.255.1.2:80", "[::1]", "[::1]:8080", "a.localhost:3", "dev.example",
        "dev.example:99", "Dev.Example",
    ]) func aLoopbackListenerAnswersItsOwnNames(host: String) {
        #expect(check(loopback, host: host) == "ok")
    }

    @Test(arguments: [
        "", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1:80:80", "127.1", "0.0.0.0",
        "10.0.0.1", "127.0.0.256", "[::1", "[::1]x", "[::2]", "localhost:8o", "localhost:80@evil", "xlocalhost", "127.0.0.0001",
        "127.-1.0.1",
    ]) func andNoOthers(host: String) {
        #expect(check(loopback, host: host) == "host_refused")
    }

    @Test func exactlyOneHostIsNeeded() {
        #expect(check(loopback, host: nil) == "bad_request")
        #expect(check(loopback, host: "localhost", extra: [("host", "localhost")]) == "bad_request")
        #expect(check(loopback, host: nil, minor: 0) == "host_refused")
        #expect(check(HostPolicy(isLoopback: false, allowedHosts: [], allowedOrigins: []), host: nil, minor: 0) == "ok")
        // An absolute target stands for the header (RFC 9112 §3.2.2).
        #expect(check(loopback, host: "localhost", authority: "evil.example") == "host_refused")
        #expect(check(loopback, host: "evil.example", authority: "localhost") == "ok")
    }

    @Test func forwardingHeadersChangeNothing() {
        for name in ["X-Forwarded-Host", "X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Proto"] {
            #expect(check(loopback, host: "evil.example", extra: [(name, "localhost")]) == "host_refused")
            #expect(check(loopback, host: "localhost", origin: "https://evil.example", extra: [(name, "evil.example")]) == "origin_refused")
            #expect(check(loopback, host: "localhost", extra: [(name, "evil.example")]) == "ok")
        }
    }

    @Test func originsMustBeOursOrAllowed() {
        #expect(check(loopback, host: "127.0.0.1:8080", origin: "http://127.0.0.1:8080") == "ok")
        #expect(check(loopback, host: "localhost", origin: "http://LOCALHOST") == "ok")
        #expect(check(loopback, host: "localhost", origin: "http://localhost:80") == "ok")
        #expect(check(loopback, host: "localhost:443", origin: "https://localhost") == "ok")
        #expect(check(loopback, host: "localhost", origin: "https://app.example") == "foreign https://app.example")
        for origin in [
            "null", "", "http://localhost:9", "http://127.0.0.1", "https://evil.example", "http://localhost.evil.example", "file://",
            "https://app.example.evil", "https://app.example:444", "http://app.example", "localhost", "http://localhost/",
        ] {
            #expect(check(loopback, host: "localhost", origin: origin) == "origin_refused", "\(origin)")
        }
        #expect(check(loopback, host: "localhost", origin: "http://localhost", extra: [("origin", "http://localhost")]) == "bad_request")
        let open = HostPolicy(isLoopback: true, allowedHosts: [], allowedOrigins: ["*"])
        #expect(check(open, host: "localhost", origin: "null") == "foreign null")
    }

    @Test func anotherListenerTakesAnyHostUnlessTold() {
        #expect(check(HostPolicy(isLoopback: false, allowedHosts: [], allowedOrigins: []), host: "anything.example") == "ok")
        let told = HostPolicy(isLoopback: false, allowedHosts: ["gw.example"], allowedOrigins: [])
        #expect(check(told, host: "gw.example:443") == "ok")
        #expect(check(told, host: "localhost") == "host_refused")
    }
}
