import Glibc
import NIOCore

/// A refusal of the file system.
struct DiskError: Error, Sendable {
    let errno: Int32

    var text: String { String(cString: strerror(errno)) }
    var isFull: Bool { errno == ENOSPC || errno == EDQUOT }
}

/// The few calls of the file system that the blob store makes; all of them block.
enum Disk {
    static func makeDirectory(_ path: String) throws {
        var partial = path.hasPrefix("/") ? "" : "."
        for part in path.split(separator: "/") {
            partial += "/" + part
            if mkdir(partial, 0o750) != 0, errno != EEXIST { throw DiskError(errno: errno) }
        }
    }

    static func freeBytes(_ path: String) throws -> Int {
        var info = statvfs()
        guard statvfs(path, &info) == 0 else { throw DiskError(errno: errno) }
        return Int(info.f_bavail) * Int(info.f_frsize)
    }

    /// Names in a directory, without the hidden ones; none when it is not there.
    static func entries(_ path: String) throws -> [String] {
        guard let directory = opendir(path) else {
            if errno == ENOENT || errno == ENOTDIR { return [] }
            throw DiskError(errno: errno)
        }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted()
    }

    /// Opens a regular file, following no symbolic link at its end; nil when there is none.
    static func openRegular(_ path: String) throws -> (descriptor: Int32, bytes: Int)? {
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            if [ENOENT, ELOOP, ENOTDIR, ENAMETOOLONG].contains(errno) { return nil }
            throw DiskError(errno: errno)
        }
        var info = stat()
        guard fstat(descriptor, &info) == 0, info.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            return nil
        }
        return (descriptor, Int(info.st_size))
    }

    /// Makes a rename within the directory survive a power cut.
    static func synchroniseDirectory(_ path: String) throws {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw DiskError(errno: errno) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw DiskError(errno: errno) }
    }

    static func modifiedMs(_ path: String) -> Int? {
        var info = stat()
        guard lstat(path, &info) == 0 else { return nil }
        return Int(info.st_mtim.tv_sec) * 1000 + Int(info.st_mtim.tv_nsec) / 1_000_000
    }
}

/// A file being written; used by one task at a time.
final class DiskFile: Sendable {
    private let descriptor: Int32

    convenience init(creating path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o640)
        guard descriptor >= 0 else { throw DiskError(errno: errno) }
        self.init(descriptor: descriptor)
    }

    /// Takes the descriptor over.
    init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    func write(_ buffer: ByteBuffer) throws {
        try buffer.withUnsafeReadableBytes { bytes in
            var done = 0
            while done < bytes.count {
                let count = Glibc.write(descriptor, bytes.baseAddress?.advanced(by: done), bytes.count - done)
                if count < 0 {
                    if errno == EINTR { continue }
                    throw DiskError(errno: errno)
                }
                done += count
            }
        }
    }

    /// Everything is on disk when this returns.
    func finish() throws {
        guard fsync(descriptor) == 0 else { throw DiskError(errno: errno) }
    }
}
