import Glibc

/// What a directory holds.
struct DiskUse: Hashable {
    /// Sizes of all regular files together.
    var bytes = 0
    /// Files and directories.
    var entries = 0

    /// Counts everything below `path`, without following links or going on once a bound is passed. Blocks: only for a thread of
    /// its own.
    static func of(_ path: String, bytes limit: Int, entries entryLimit: Int) -> DiskUse {
        var use = DiskUse()
        var directories = [path]
        while let directory = directories.popLast(), use.bytes <= limit, use.entries <= entryLimit {
            for name in Directories.entries(directory) {
                var info = stat()
                guard lstat("\(directory)/\(name)", &info) == 0 else { continue }
                use.entries += 1
                switch info.st_mode & S_IFMT {
                case S_IFDIR: directories.append("\(directory)/\(name)")
                case S_IFREG: use.bytes += Int(info.st_size)
                default: break
                }
            }
        }
        return use
    }
}

enum DiskSpace {
    /// Whether hardly anything more can be written at `path`: no room for the last blocks of a file, or for another file.
    static func isFull(_ path: String) -> Bool {
        var info = statvfs()
        guard statvfs(path, &info) == 0 else { return false }
        let free = Int(clamping: info.f_bavail).multipliedReportingOverflow(by: Int(info.f_frsize))
        return (!free.overflow && free.partialValue < WorkerLimits.fullDiskBytes) || (info.f_files > 0 && info.f_favail == 0)
    }

    /// Whether a program said that it could not write for want of room.
    static func isMeant(by message: String) -> Bool {
        [ENOSPC, EDQUOT].contains { message.contains(describe(errno: $0)) }
    }
}
