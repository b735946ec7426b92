import Glibc
import Synchronization

/// Makes an empty directory, hands its path to `body`, and removes it with everything in it.
public func withTemporaryDirectory<Result>(
    prefix: String = "headway-test",
    _ body: (_ path: String) async throws -> Result
) async throws -> Result {
    let path = try makeTemporaryDirectory(prefix: prefix)
    defer { removeDirectory(path) }
    return try await body(path)
}

/// A fresh directory under `TMPDIR` (or `/tmp`); the caller removes it with ``removeDirectory(_:)``.
///
/// The path stays short, because the name of a Unix socket in it may have at most 107 bytes.
public func makeTemporaryDirectory(prefix: String = "headway-test") throws -> String {
    let parent = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var template = Array("\(parent)/\(prefix)-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else {
        throw TestSupportError(.system, "mkdtemp in \(parent) failed with errno \(errno)")
    }
    return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Removes `path` and everything below it; symbolic links are removed, not followed.
public func removeDirectory(_ path: String) {
    for name in directoryEntries(path) {
        let entry = "\(path)/\(name)"
        // unlink refuses directories, so that is the test for one; it never follows a link.
        if unlink(entry) != 0 { removeDirectory(entry) }
    }
    rmdir(path)
}

/// Names in a directory, without `.` and `..`; empty when it cannot be read.
func directoryEntries(_ path: String) -> [String] {
    guard let directory = opendir(path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}

/// Ports this process handed out already, so that two tests running side by side never get the same one.
private let portsTaken = Mutex<Set<UInt16>>([])

/// A TCP port of 127.0.0.1 that nobody listens on now. Prefer port 0 where a server can say which port it got.
public func freePort() throws -> Int {
    for _ in 0..<64 {
        let port = try unboundPort()
        if portsTaken.withLock({ $0.insert(port).inserted }) { return Int(port) }
    }
    throw TestSupportError(.system, "no free TCP port found")
}

private func unboundPort() throws -> UInt16 {
    let socket = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { throw TestSupportError(.system, "socket failed with errno \(errno)") }
    defer { close(socket) }
    var address = loopback(port: 0)
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let rc = withUnsafeMutablePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
            bind(socket, generic, length) == 0 ? getsockname(socket, generic, &length) : -1
        }
    }
    guard rc == 0 else { throw TestSupportError(.system, "bind failed with errno \(errno)") }
    return UInt16(bigEndian: address.sin_port)
}

func loopback(port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr = in_addr(s_addr: UInt32(0x7f00_0001).bigEndian)
    address.sin_port = port.bigEndian
    return address
}
