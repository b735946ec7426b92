import Glibc
import NIOCore
import NIOPosix
import ProgressCore

/// Blobs in a directory: `uploads/ID/NAME`, `jobs/j-JOB/NAME`, and `tmp/` for what is not whole yet.
///
/// A file appears under its name only when it is whole and on disk (`fsync`, then `rename`). Blocking calls run on a thread pool,
/// never on an event loop. Gateways on one host, or with a shared volume, use one directory together.
struct DirectoryBlobStore: BlobStore {
    let root: String
    let limits: GatewayLimits
    let environment: GatewayEnvironment
    private let pool: NIOThreadPool

    init(root: String, limits: GatewayLimits, environment: GatewayEnvironment, pool: NIOThreadPool = .singleton) {
        self.root = root
        self.limits = limits
        self.environment = environment
        self.pool = pool
    }

    private var temporary: String { root + "/tmp" }
    private func uploadDirectory(_ id: String) -> String { root + "/uploads/" + id }
    /// The prefix keeps ids such as `..` from being paths.
    private func jobDirectory(_ job: JobID) -> String { root + "/jobs/j-" + job.text }

    /// Upload ids are ours: 32 hex digits. Anything else is no path of ours.
    static func isUploadID(_ id: String) -> Bool {
        id.utf8.count == 32 && id.utf8.allSatisfy { JSONChecker.hexDigit($0) != nil && !(0x41...0x46).contains($0) }
    }

    func prepare() async throws(GatewayError) {
        do {
            try await blocking { [self] in
                for directory in [root, temporary, root + "/uploads", root + "/jobs"] { try Disk.makeDirectory(directory) }
            }
        } catch let error as DiskError {
            throw GatewayError(.invalidConfiguration, "the data directory \(root) cannot be used: \(error.text)")
        } catch {
            throw GatewayError(.invalidConfiguration, "the data directory \(root) cannot be used: \(error)")
        }
    }

    // MARK: Writing

    func write(
        _ place: BlobPlace,
        body: RequestBody,
        limit: Int,
        inspect: @Sendable (ByteBuffer) throws(GatewayError) -> Void,
        commit: @Sendable () async throws -> Void
    ) async throws -> BlobInfo {
        let path = temporary + "/" + environment.makeSecretID()
        let file = try await refused { [self] in
            guard try Disk.freeBytes(root) >= limits.freeDiskBytes else { throw DiskError(errno: ENOSPC) }
            return try DiskFile(creating: path)
        }
        do {
            var bytes = 0
            var head = ByteBuffer()
            var isInspected = false
            for try await piece in body {
                bytes += piece.readableBytes
                guard bytes <= limit else { throw GatewayError(.bodyTooLarge, "the file has more than \(limit) bytes") }
                if !isInspected {
                    head.writeImmutableBuffer(piece.getSlice(at: piece.readerIndex, length: min(16, piece.readableBytes)) ?? ByteBuffer())
                    if head.readableBytes >= 16 {
                        try inspect(head)
                        isInspected = true
                    }
                }
                try await refused { try file.write(piece) }
            }
            if !isInspected { try inspect(head) }
            try await refused { try file.finish() }
            try await commit()
            let total = bytes
            return try await refused { [self] in try move(path, to: place, bytes: total) }
        } catch {
            // In a task of its own: the thread pool refuses a cancelled one, which is what a client that left makes of ours.
            await Task { _ = try? await blocking { unlink(path) } }.value
            throw error
        }
    }

    private func move(_ path: String, to place: BlobPlace, bytes: Int) throws -> BlobInfo {
        let directory: String
        let name: BlobName
        switch place {
        case .upload(let id, let given): (directory, name) = (uploadDirectory(id), given)
        case .jobFile(let job, let given):
            (directory, name) = (jobDirectory(job), given)
            try Disk.makeDirectory(directory)
            let others = try Disk.entries(directory).filter { $0 != name.text }
            guard others.count < limits.jobFiles else {
                throw GatewayError(.tooManyFiles, "the job has its \(limits.jobFiles) files already")
            }
        }
        try Disk.makeDirectory(directory)
        guard rename(path, directory + "/" + name.text) == 0 else { throw DiskError(errno: errno) }
        try Disk.synchroniseDirectory(directory)
        return BlobInfo(name: name.text, bytes: bytes, contentType: name.contentType)
    }

    // MARK: Reading

    func upload(_ id: String) async throws -> BlobInfo? { try await openUpload(id)?.info }

    func openUpload(_ id: String) async throws -> (file: BlobFile, info: BlobInfo)? {
        guard Self.isUploadID(id) else { return nil }
        return try await refused { [self] in
            guard let name = try Disk.entries(uploadDirectory(id)).first.flatMap({ BlobName($0) }) else { return nil }
            return try open(uploadDirectory(id), name)
        }
    }

    func openJobFile(_ job: JobID, _ name: BlobName) async throws -> (file: BlobFile, info: BlobInfo)? {
        try await refused { [self] in try open(jobDirectory(job), name) }
    }

    private func open(_ directory: String, _ name: BlobName) throws -> (file: BlobFile, info: BlobInfo)? {
        guard let (descriptor, bytes) = try Disk.openRegular(directory + "/" + name.text) else { return nil }
        // Used now: its time begins again.
        utimensat(AT_FDCWD, directory, nil, 0)
        futimens(descriptor, nil)
        return (
            BlobFile(descriptor: descriptor, bytes: bytes, pool: pool),
            BlobInfo(name: name.text, bytes: bytes, contentType: name.contentType)
        )
    }

    // MARK: Sweeping

    func sweep(nowMs: Int) async -> Int {
        let count = try? await blocking { [self] in
            var count = 0
            for (parent, ttl) in [("/tmp", limits.unfinishedBlobTTL), ("/uploads", limits.blobTTL), ("/jobs", limits.blobTTL)] {
                let oldest = nowMs - Int(ttl.components.seconds) * 1000
                for entry in (try? Disk.entries(root + parent)) ?? [] {
                    let path = root + parent + "/" + entry
                    guard let changed = Disk.modifiedMs(path), changed < oldest else { continue }
                    // A file that came meanwhile keeps its directory.
                    for file in (try? Disk.entries(path)) ?? [] where Disk.modifiedMs(path + "/" + file).map({ $0 < oldest }) ?? false {
                        unlink(path + "/" + file)
                    }
                    if parent == "/tmp" ? unlink(path) == 0 : rmdir(path) == 0 { count += 1 }
                }
            }
            return count
        }
        return count ?? 0
    }

    // MARK: The thread pool

    private func blocking<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await pool.runIfActive(body)
    }

    /// The same, with the disk's refusals in the gateway's words.
    private func refused<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        do {
            return try await blocking(body)
        } catch let error as DiskError {
            if error.isFull { throw GatewayError(.diskFull, "the gateway's disk is full: try again later", retryAfterSeconds: 60) }
            throw GatewayError(.internalError, "the gateway cannot use its data directory: \(error.text)")
        }
    }
}
