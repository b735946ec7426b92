import Glibc
import JobStore

/// Runs a small program of the system and returns what it printed.
enum ShortCommand {
    enum Outcome: Hashable, Sendable {
        case printed(String)
        case failed
    }

    /// Starts the program and calls `then` once, from a thread of its own. It is killed when it takes longer than `limit` or
    /// prints more than `bytes`; that, and any exit status but 0, is a failure.
    ///
    /// Nobody waits for it: a program that hangs in a driver cannot be killed, and must not keep a worker from ending.
    static func start(
        _ path: String,
        _ arguments: [String],
        environment: [String],
        limit: Duration,
        bytes: Int,
        then: @escaping @Sendable (Outcome) -> Void
    ) {
        let isStarted = startThread {
            guard let output = try? Pipe(), let pid = spawn([path] + arguments, environment, output.writeEnd) else { return then(.failed) }
            output.writeEnd.close()
            let text = read(output.readEnd, until: monotonicMs() + limit.wholeMilliseconds, bytes: bytes)
            guard let text else {
                // Its whole group: it may have started something that holds the pipe.
                kill(-pid, SIGKILL)
                then(.failed)
                _ = wait(for: pid)
                return
            }
            then(wait(for: pid) == 0 ? .printed(String(decoding: text, as: UTF8.self)) : .failed)
        }
        if !isStarted { then(.failed) }
    }

    /// The wait status, or -1.
    private static func wait(for pid: pid_t) -> Int32 {
        var status: Int32 = 0
        var result: pid_t
        repeat { result = waitpid(pid, &status, 0) } while result < 0 && errno == EINTR
        return result == pid ? status : -1
    }

    /// Starts the program as the leader of a process group of its own, with our signal settings undone.
    private static func spawn(_ command: [String], _ environment: [String], _ output: Descriptor) -> pid_t? {
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        guard null >= 0 else { return nil }
        defer { close(null) }
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        guard posix_spawn_file_actions_init(&actions) == 0 else { return nil }
        defer { posix_spawn_file_actions_destroy(&actions) }
        guard posix_spawnattr_init(&attributes) == 0 else { return nil }
        defer { posix_spawnattr_destroy(&attributes) }
        for (own, number) in [(null, 0), (output.number, 1), (null, 2)] as [(Int32, Int32)] {
            guard posix_spawn_file_actions_adddup2(&actions, own, number) == 0 else { return nil }
        }
        var (all, none) = (sigset_t(), sigset_t())
        sigfillset(&all)
        sigemptyset(&none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))
        var pid: pid_t = 0
        let error = withCStrings(command) { argv in
            withCStrings(environment) { envp in posix_spawn(&pid, command[0], &actions, &attributes, argv, envp) }
        }
        return error == 0 ? pid : nil
    }

    private static func withCStrings<R>(_ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> R) -> R {
        var pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) }
        pointers.append(nil)
        defer { for pointer in pointers { free(pointer) } }
        return body(pointers)
    }

    /// What comes until end of file; nil when that is too much or takes too long.
    private static func read(_ end: Descriptor, until deadlineMs: Int, bytes: Int) -> [UInt8]? {
        end.setNonBlocking()
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let left = deadlineMs - monotonicMs()
            guard left > 0, text.count <= bytes else { return nil }
            var polled = pollfd(fd: end.number, events: Int16(POLLIN), revents: 0)
            guard poll(&polled, 1, Int32(clamping: left)) >= 0 || errno == EINTR else { return nil }
            let count = Glibc.read(end.number, &buffer, buffer.count)
            if count == 0 { return text }
            if count > 0 { text += buffer.prefix(count) } else if errno != EAGAIN && errno != EINTR { return nil }
        }
    }
}
