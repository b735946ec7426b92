import Glibc
import JobStore
import ProgressCore
import TestSupport
import Testing

@testable import WorkerRuntime

/// Inputs and outputs over HTTP, against a small server that behaves as the test says.
@Suite(.timeLimit(.minutes(5))) struct GatewayFilesTests {
    /// Serves `up/ID`, stores into `files/`, logs requests into `log`; answers 503 while a file `busy` has lines.
    private static let server = """
        import http.server, os, sys, urllib.parse
        root = sys.argv[1]
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def note(self):
                line = "%s %s %s %s\\n" % (self.command, self.path, self.headers.get("Headway-Fence"), self.headers.get("Content-Type"))
                open(root + "/log", "a").write(line)
            def busy(self):
                if os.path.exists(root + "/busy"):
                    left = int(open(root + "/busy").read()) - 1
                    open(root + "/busy", "w").write(str(left)) if left else os.remove(root + "/busy")
                    return True
            def answer(self, status, body=b""):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            def do_GET(self):
                self.note()
                path = root + "/up/" + self.path.split("/")[-1]
                if self.busy(): return self.answer(503)
                if self.path.endswith("/cut"):
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b"only this")
                    self.close_connection = True
                    return
                self.answer(200, open(path, "rb").read()) if os.path.exists(path) else self.answer(404)
            def do_PUT(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.note()
                if self.busy(): return self.answer(500)
                name = urllib.parse.unquote(self.path.split("/")[-1])
                if name.startswith("bad"): return self.answer(413)
                open(root + "/files/" + name, "wb").write(body)
                self.answer(201, b"{}")
            def log_message(self, *args): pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        open(root + "/port.new", "w").write(str(server.server_address[1]))
        os.rename(root + "/port.new", root + "/port")
        server.serve_forever()
        """

    private struct Fake {
        let root: String
        let url: String
        var log: [String] { (readFile(root + "/log") ?? "").split(separator: "\n").map(String.init) }
        func write(_ path: String, _ text: String) { WorkerRuntimeTests.write(text, to: "\(root)/\(path)") }
        func read(_ path: String) -> String? { readFile("\(root)/\(path)") }
    }

    private static func with(
        script: String,
        _ body: @escaping @Sendable (Fake, WorkerFixture) async throws -> Void
    ) async throws {
        try await withTemporaryDirectory { root in
            for name in ["up", "files"] { mkdir("\(root)/\(name)", 0o700) }
            let process = try ChildProcess("python3", ["-c", server, root], errorPath: root + "/err")
            defer { process.kill() }
            let port: String = try await eventually("the server's port") { readFile(root + "/port") }
            let fake = Fake(root: root, url: "http://127.0.0.1:\(port)")
            try await WorkerFixture.with(script: script, gatewayURL: fake.url + "/") { try await body(fake, $0) }
        }
    }

    private static let copy =
        #"cat "$HEADWAY_INPUT_DIR"/* > "$HEADWAY_OUTPUT_DIR/all of it.txt"; head -c 3000000 /dev/zero > "$HEADWAY_OUTPUT_DIR/big.glb""#

    @Test func inputsComeAndOutputsGo() async throws {
        try await Self.with(script: Self.copy) { fake, fixture in
            fake.write("up/u1", "first ")
            fake.write("up/u2", "second")
            let job = try await fixture.submit(
                "a:1",
                params: #"{"inputs":[{"upload":"u1","name":"a photo.jpg"},{"upload":"u2","name":"b.jpg"}]}"#
            )
            let end = try await fixture.end(of: job)
            #expect(end.phase == .complete)
            #expect(fake.read("files/all of it.txt") == "first second")
            #expect(fake.read("files/big.glb")?.utf8.count == 3_000_000)
            #expect(end.fields["result"]?.contains(#""url":"/v1/jobs/a%3A1/files/all%20of%20it.txt""#) == true)
            #expect(fake.log.contains { $0.hasPrefix("PUT /v1/jobs/a%3A1/files/big.glb ") && $0.hasSuffix(" model/gltf-binary") })
            #expect(!fake.log.contains { $0.hasPrefix("PUT") && $0.contains(" None ") })
            // Nothing of the job stays on this machine.
            try await eventually("the directory is gone") { Directories.entries(fixture.root + "/work/w1") == ["lock"] }
        }
    }

    @Test func aBusyGatewayIsAskedAgain() async throws {
        try await Self.with(script: Self.copy) { fake, fixture in
            fake.write("up/u1", "x")
            fake.write("busy", "2")
            let job = try await fixture.submit("a", params: #"{"inputs":[{"upload":"u1","name":"a"}]}"#)
            #expect(try await fixture.end(of: job).phase == .complete)
            #expect(fake.log.count { $0.hasPrefix("GET") } == 3)
        }
    }

    @Test(arguments: [
        (#"{"inputs":[{"upload":"absent","name":"a"}]}"#, "input_unavailable", "404"),
        (#"{"inputs":[{"upload":"u1","name":"../a"}]}"#, "input_unavailable", "plain file name"),
        (#"{"inputs":[{"upload":"cut","name":"a"}]}"#, "input_unavailable", "cannot be reached"),
    ])
    func anInputThatCannotBeFetchedIsNamed(params: String, code: String, reason: String) async throws {
        try await Self.with(script: "ls -A \"$HEADWAY_INPUT_DIR\"") { fake, fixture in
            let job = try await fixture.submit("a", params: params) { $0.maxAttempts = 1 }
            let end = try await fixture.end(of: job, within: .seconds(30))
            #expect(end.phase == .failed)
            #expect(end.fields["error"]?.contains(code) == true, "\(end.fields["error"] ?? "")")
            #expect(end.fields["error"]?.contains(reason) == true, "\(end.fields["error"] ?? "")")
        }
    }

    @Test func anOutputThatIsRefusedFailsTheJob() async throws {
        try await Self.with(script: "touch \"$HEADWAY_OUTPUT_DIR/bad.glb\"") { _, fixture in
            let job = try await fixture.submit("a")
            let end = try await fixture.end(of: job)
            #expect(end.phase == .failed)
            #expect(end.fields["error"]?.contains("output_rejected") == true)
            #expect(end.fields["error"]?.contains("413") == true)
        }
    }

    @Test func linksAndDirectoriesAreNoOutputs() async throws {
        let script = """
            ln -s /etc/passwd "$HEADWAY_OUTPUT_DIR/secrets.txt"; mkdir "$HEADWAY_OUTPUT_DIR/sub"
            mkfifo "$HEADWAY_OUTPUT_DIR/pipe"; echo ok > "$HEADWAY_OUTPUT_DIR/ok.txt"
            """
        try await Self.with(script: script) { fake, fixture in
            let job = try await fixture.submit("a")
            let end = try await fixture.end(of: job)
            #expect(end.phase == .complete)
            #expect(Directories.entries(fake.root + "/files") == ["ok.txt"])
        }
    }

    @Test func previewsAreSmallImagesOfTheOutputDirectory() async throws {
        let png = #"\211PNG\r\n\032\n and so on"#
        let script = """
            printf '\(png)' > "$HEADWAY_OUTPUT_DIR/p.png"
            for p in ../../../../lock /etc/passwd none.png p.png; do echo "{\\"preview\\":\\"$p\\"}" >&3; sleep 0.05; done
            sleep 2
            """
        try await Self.with(script: script) { _, fixture in
            let job = try await fixture.submit("a")
            try await eventually("the preview") { try await fixture.store.preview(job) != nil }
            #expect(try await fixture.store.preview(job)?.contentType == "image/png")
            try await fixture.end(of: job)
            #expect(fixture.flaky.calls("preview").count == 1)
        }
    }
}

private func write(_ text: String, to path: String) {
    guard let file = fopen(path, "w") else { return }
    fputs(text, file)
    fclose(file)
}
