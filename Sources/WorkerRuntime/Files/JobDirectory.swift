import Glibc

/// The files of one run of a job on this machine: `<work>/<worker>/job-<id>-<number>/{in,out}`.
struct JobDirectory {
    let path: String
    var input: String { path + "/in" }
    var output: String { path + "/out" }

    /// Makes the directory, empty: what an earlier worker of this name left is removed.
    func make() throws(BackendError) {
        Directories.remove(path)
        for directory in [path, input, output] {
            guard mkdir(directory, 0o700) == 0 else { throw .system("no directory for the job", errno: errno) }
        }
    }

    func remove() { Directories.remove(path) }
}

/// Directories of workers below one work directory. Each living worker holds a lock on its own, so that what dead ones left
/// can be told from what living ones use.
final class WorkerDirectory: Sendable {
    let path: String
    private let lock: Int32

    /// - Parameter removesLeftovers: also remove what dead workers left: unfinished jobs, which run elsewhere by now. Not when
    ///   results are kept here.
    init(name: String, in workDirectory: String, removesLeftovers: Bool) throws(WorkerError) {
        let root = Self.absolute(workDirectory)
        path = "\(root)/\(name)"
        try Self.makeAll(path)
        lock = open("\(path)/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard lock >= 0 else { throw Self.problem("\(path)/lock", errno) }
        guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
            close(lock)
            throw WorkerError(.workDirectory, "\(path) is in use by another worker of this name; give this one its own --name")
        }
        if removesLeftovers { Self.removeLeftovers(in: root, except: name) }
    }

    deinit { close(lock) }

    /// Removes the directory of a worker that stopped in good order, unless a job's results are still in it.
    func removeIfEmpty() {
        guard Directories.entries(path) == ["lock"] else { return }
        unlink("\(path)/lock")
        rmdir(path)
    }

    private static func removeLeftovers(in root: String, except name: String) {
        for other in Directories.entries(root) where other != name {
            let lock = open("\(root)/\(other)/lock", O_RDWR | O_CLOEXEC)
            guard lock >= 0 else { continue }
            if flock(lock, LOCK_EX | LOCK_NB) == 0 { Directories.remove("\(root)/\(other)") }
            close(lock)
        }
    }

    private static func absolute(_ path: String) -> String {
        if path.utf8.first == UInt8(ascii: "/") { return path }
        guard let current = getcwd(nil, 0) else { return path }
        defer { free(current) }
        return String(cString: current) + "/" + path
    }

    private static func makeAll(_ path: String) throws(WorkerError) {
        var partial = ""
        for component in path.split(separator: "/") {
            partial += "/" + component
            if mkdir(partial, 0o700) != 0, errno != EEXIST { throw problem(partial, errno) }
        }
        var info = stat()
        guard stat(path, &info) == 0, info.st_mode & S_IFMT == S_IFDIR else { throw problem(path, ENOTDIR) }
    }

    private static func problem(_ path: String, _ number: Int32) -> WorkerError {
        WorkerError(.workDirectory, "the work directory cannot be used: \(path): \(describe(errno: number))")
    }
}

enum Directories {
    /// Names in a directory, sorted, without `.` and `..`; empty when it cannot be read.
    static func entries(_ path: String) -> [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Removes `path` and everything below it; symbolic links are removed, not followed.
    static func remove(_ path: String) {
        if unlink(path) == 0 || errno == ENOENT { return }
        for name in entries(path) { remove("\(path)/\(name)") }
        rmdir(path)
    }
}
