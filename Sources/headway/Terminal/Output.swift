#if canImport(Glibc)
    import Glibc
#endif

/// Writes whole strings to a descriptor at once: data to stdout, everything said about the work to stderr.
struct Output: Sendable {
    let descriptor: CInt

    static let standard = Output(descriptor: STDOUT_FILENO)
    static let error = Output(descriptor: STDERR_FILENO)

    var isTerminal: Bool { isatty(descriptor) == 1 }

    /// Columns and rows, or nil when it is no terminal that knows them.
    var size: (columns: Int, rows: Int)? {
        var size = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
        return (Int(size.ws_col), max(Int(size.ws_row), 2))
    }

    func line(_ text: String) { write(text + "\n") }

    /// Ends the process when nobody reads stdout any more, as `head` expects of every program before it.
    func write(_ text: String) {
        Array(text.utf8).withUnsafeBytes { write($0) }
    }

    func write(_ bytes: UnsafeRawBufferPointer) {
        var bytes = bytes
        while !bytes.isEmpty {
            let count = Glibc.write(descriptor, bytes.baseAddress, bytes.count)
            if count > 0 {
                bytes = UnsafeRawBufferPointer(rebasing: bytes.dropFirst(count))
            } else if errno == EPIPE, descriptor == STDOUT_FILENO {
                exit(128 + SIGPIPE)
            } else if errno == EAGAIN {
                // A terminal that another program has made non-blocking: wait until it takes more.
                var poll = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                _ = Glibc.poll(&poll, 1, 1000)
            } else if errno != EINTR {
                return
            }
        }
    }
}
