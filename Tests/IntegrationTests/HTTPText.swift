import NIOPosix
import TestSupport

#if canImport(Glibc)
    import Glibc
#endif

/// Requests by hand over a blocking socket: exactly the bytes a test wants, and nothing that corrects them.
enum HTTPText {
    struct Answer: Sendable {
        let status: Int
        let head: String
        let body: String
    }

    static func get(_ port: Int, _ path: String, headers: String = "") async throws -> Answer {
        try await send(port, "GET \(path) HTTP/1.1\r\nhost: 127.0.0.1:\(port)\r\nconnection: close\r\n\(headers)\r\n")
    }

    static func post(_ port: Int, _ path: String, _ body: String, contentType: String = "application/json") async throws -> Answer {
        try await send(
            port,
            "POST \(path) HTTP/1.1\r\nhost: 127.0.0.1:\(port)\r\nconnection: close\r\ncontent-type: \(contentType)\r\n"
                + "content-length: \(body.utf8.count)\r\n\r\n\(body)"
        )
    }

    /// Sends `text` and reads until the server closes (at most 4 MiB, at most 40 s).
    static func send(_ port: Int, _ text: String) async throws -> Answer {
        let bytes = try await NIOThreadPool.singleton.runIfActive { try exchange(port, Array(text.utf8)) }
        let answer = String(decoding: bytes, as: UTF8.self)
        guard let end = answer.firstRange(of: "\r\n\r\n") else { return Answer(status: 0, head: answer, body: "") }
        let head = String(answer[..<end.lowerBound])
        let status = head.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
        return Answer(status: status, head: head, body: String(answer[end.upperBound...]))
    }

    private static func exchange(_ port: Int, _ request: [UInt8]) throws -> [UInt8] {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw TestSupportError(.system, "no socket") }
        defer { close(descriptor) }
        var limit = timeval(tv_sec: 40, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port).bigEndian)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        guard connected == 0 else { throw TestSupportError(.system, "connection refused") }
        var sent = 0
        while sent < request.count {
            let count = request[sent...].withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            // The server may refuse before it has read everything: its answer is what counts.
            if count <= 0 { break }
            sent += count
        }
        var answer: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while answer.count < 4 * 1024 * 1024 {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count <= 0 { break }
            answer += chunk[..<count]
        }
        return answer
    }
}
