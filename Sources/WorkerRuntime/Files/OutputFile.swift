import Glibc

/// A file that a generator left in its output directory.
struct OutputFile: Hashable {
    let name: String
    let path: String
    let bytes: Int

    /// The regular files directly in `directory`, by name. Links and subdirectories are not followed: a generator must not
    /// be able to publish a file of the worker's.
    static func list(_ directory: String) throws(BackendError) -> [OutputFile] {
        var files: [OutputFile] = []
        for name in Directories.entries(directory) {
            let path = "\(directory)/\(name)"
            var info = stat()
            guard lstat(path, &info) == 0, info.st_mode & S_IFMT == S_IFREG else { continue }
            guard FileName.isSafe(name) else {
                throw .outputRejected("a file has a name that cannot be delivered", isRecoverable: false)
            }
            guard info.st_size <= WorkerLimits.fileBytes else {
                throw .outputRejected(
                    "\(name) has \(info.st_size) bytes; at most \(WorkerLimits.fileBytes) are taken",
                    isRecoverable: false
                )
            }
            guard files.count < WorkerLimits.outputs else {
                throw .outputRejected("there are more than \(WorkerLimits.outputs) files", isRecoverable: false)
            }
            files.append(OutputFile(name: name, path: path, bytes: Int(info.st_size)))
        }
        return files
    }

    /// A small file by its path relative to `directory`, or nil when it is not one: no way out of the directory, no link as
    /// the last component.
    static func read(_ path: String, in directory: String, atMost limit: Int) -> [UInt8]? {
        let components = path.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard (1...8).contains(components.count), components.allSatisfy(FileName.isSafe) else { return nil }
        let number = open("\(directory)/\(path)", O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)
        guard number >= 0 else { return nil }
        let file = Descriptor(number)
        var info = stat()
        guard fstat(file.number, &info) == 0, info.st_mode & S_IFMT == S_IFREG, info.st_size <= limit else { return nil }
        var bytes = [UInt8](repeating: 0, count: Int(info.st_size))
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeMutableBytes { Glibc.read(file.number, $0.baseAddress.map { $0 + done }, $0.count - done) }
            guard count > 0 else { return nil }
            done += count
        }
        return bytes
    }
}

extension BackendError {
    static func outputRejected(_ reason: String, isRecoverable: Bool) -> BackendError {
        BackendError(code: "output_rejected", message: "the outputs were not delivered: \(reason)", isRecoverable: isRecoverable)
    }

    static func inputUnavailable(_ name: String, _ reason: String, isRecoverable: Bool) -> BackendError {
        BackendError(code: "input_unavailable", message: "the input '\(name)' cannot be fetched: \(reason)", isRecoverable: isRecoverable)
    }
}
