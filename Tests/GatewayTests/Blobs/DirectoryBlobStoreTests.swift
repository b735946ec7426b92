import Glibc
import NIOCore
import NIOPosix
import ProgressCore
import Synchronization
import TestSupport
import Testing

@testable import Gateway

/// Files appear whole or not at all, under the names they were given, and leave when their time is over.
@Suite(.timeLimit(.minutes(5))) struct DirectoryBlobStoreTests {
    private static let day = 24 * 3600 * 1000

    private struct Fixture {
        let root: String
        let store: DirectoryBlobStore

        func path(_ tail: String) -> String { root + "/" + tail }
        func names(_ tail: String) throws -> [String] { try Disk.entries(path(tail)) }
        var temporaries: [String] { (try? names("tmp")) ?? [] }
    }

    private static func with(_ change: Change<GatewayLimits> = .init { _ in }, _ body: (Fixture) async throws -> Void) async throws {
        var limits = GatewayLimits()
        limits.freeDiskBytes = 0
        change.apply(&limits)
        try await withTemporaryDirectory { root in
            let store = DirectoryBlobStore(root: root + "/data", limits: limits, environment: .system)
            try await store.prepare()
            try await body(Fixture(root: root + "/data", store: store))
        }
    }

    /// A body that gives these pieces and then ends, or fails.
    private static func body(_ pieces: [[UInt8]], failure: (any Error)? = nil) -> RequestBody {
        let delegate = RequestBodyDelegate(eventLoop: MultiThreadedEventLoopGroup.singleton.any()) {}
        let (body, source) = RequestBody.make(delegate: delegate)
        for piece in pieces { _ = source.yield(ByteBuffer(bytes: piece)) }
        if let failure { source.finish(failure) } else { source.finish() }
        return body
    }

    private static func id(_ number: Int) -> String {
        let hex = String(number, radix: 16)
        return String(repeating: "0", count: 32 - hex.count) + hex
    }

    private static func name(_ text: String) throws -> BlobName { try #require(BlobName(text)) }
    private static func job(_ text: String) throws -> JobID { try #require(JobID(text)) }

    @discardableResult
    private static func write(
        _ fixture: Fixture,
        _ place: BlobPlace,
        _ pieces: [[UInt8]],
        limit: Int = 1000,
        failure: (any Error)? = nil,
        inspect: @Sendable (ByteBuffer) throws(GatewayError) -> Void = { (_) throws(GatewayError) in },
        commit: @Sendable () async throws -> Void = {}
    ) async throws -> BlobInfo {
        try await fixture.store.write(place, body: body(pieces, failure: failure), limit: limit, inspect: inspect, commit: commit)
    }

    private static func read(_ file: BlobFile) async throws -> [UInt8] {
        let loop = MultiThreadedEventLoopGroup.singleton.any()
        return Array(try await file.read(at: 0, count: file.bytes + 10, on: loop).get().readableBytesView)
    }

    @Test func whatWasWrittenIsReadBack() async throws {
        try await Self.with { fixture in
            let info = try await Self.write(fixture, .upload(id: Self.id(1), name: Self.name("p.jpg")), [[1, 2], [], [3]])
            #expect(info == BlobInfo(name: "p.jpg", bytes: 3, contentType: "image/jpeg"))
            let (file, found) = try #require(try await fixture.store.openUpload(Self.id(1)))
            #expect(found == info)
            #expect(try await Self.read(file) == [1, 2, 3])
            #expect(try await fixture.store.upload(Self.id(2)) == nil)

            let job = try Self.job("a~1")
            try await Self.write(fixture, .jobFile(job, Self.name("m.glb")), [[1]])
            try await Self.write(fixture, .jobFile(job, Self.name("m.glb")), [[4, 5]])
            let (again, _) = try #require(try await fixture.store.openJobFile(job, Self.name("m.glb")))
            #expect(try await Self.read(again) == [4, 5])
            #expect(try await fixture.store.openJobFile(job, Self.name("other")) == nil)
            #expect(fixture.temporaries.isEmpty)
        }
    }

    /// The reader keeps what it opened, whatever is put in its place.
    @Test func aReplacedFileIsReadToItsEnd() async throws {
        try await Self.with { fixture in
            let place = BlobPlace.jobFile(try Self.job("j"), try Self.name("f"))
            try await Self.write(fixture, place, [[1, 1, 1]])
            let (old, _) = try #require(try await fixture.store.openJobFile(Self.job("j"), Self.name("f")))
            try await Self.write(fixture, place, [[2]])
            #expect(try await Self.read(old) == [1, 1, 1])
        }
    }

    @Test func nothingIsLeftOfWhatWasNotFinished() async throws {
        struct Gone: Error {}
        try await Self.with { fixture in
            let place = BlobPlace.upload(id: Self.id(7), name: try Self.name("f"))
            await #expect(throws: Gone.self) { try await Self.write(fixture, place, [[1, 2, 3]], failure: Gone()) }
            await #expect(throws: Gone.self) { try await Self.write(fixture, place, [[1]], commit: { throw Gone() }) }
            let tooLarge = await Self.code { try await Self.write(fixture, place, [[1, 2], [3, 4]], limit: 3) }
            #expect(tooLarge == .bodyTooLarge)
            let refused = await Self.code {
                try await Self.write(fixture, place, [[1]], inspect: { (_) throws(GatewayError) in throw GatewayError(.notAnImage, "") })
            }
            #expect(refused == .notAnImage)
            #expect(try fixture.names("uploads").isEmpty && fixture.temporaries.isEmpty)
        }
    }

    /// The inspection sees the first sixteen bytes however small the pieces are, and once.
    @Test func theHeadIsGatheredFromPieces() async throws {
        try await Self.with { fixture in
            for size in [1, 5, 16, 40] {
                let bytes = (0..<40).map { UInt8($0) }
                let pieces = stride(from: 0, to: 40, by: size).map { Array(bytes[$0..<min(40, $0 + size)]) }
                let seen = Mutex<[[UInt8]]>([])
                try await Self.write(
                    fixture,
                    .upload(id: Self.id(size), name: Self.name("f")),
                    pieces,
                    inspect: { (head) throws(GatewayError) in seen.withLock { $0.append(Array(head.readableBytesView)) } }
                )
                #expect(seen.withLock { $0.count == 1 && $0[0].starts(with: bytes.prefix(16)) }, "\(size)")
            }
        }
    }

    @Test func aFullDiskIsSaidSo() async throws {
        try await Self.with(.init { $0.freeDiskBytes = .max }) { fixture in
            let place = BlobPlace.upload(id: Self.id(1), name: try Self.name("f"))
            let code = await Self.code { try await Self.write(fixture, place, [[1]]) }
            #expect(code == .diskFull)
            #expect(fixture.temporaries.isEmpty)
        }
        #expect(DiskError(errno: ENOSPC).isFull && DiskError(errno: EDQUOT).isFull && !DiskError(errno: EACCES).isFull)
        #expect(throws: DiskError.self) { try DiskFile(opening: "/dev/full").write(ByteBuffer(string: "x")) }
    }

    @Test func aJobHasOnlySoManyFiles() async throws {
        try await Self.with(.init { $0.jobFiles = 3 }) { fixture in
            let job = try Self.job("j")
            for number in 0..<3 { try await Self.write(fixture, .jobFile(job, Self.name("f\(number)")), [[1]]) }
            let place = BlobPlace.jobFile(job, try Self.name("f3"))
            let code = await Self.code { try await Self.write(fixture, place, [[1]]) }
            #expect(code == .tooManyFiles)
            try await Self.write(fixture, .jobFile(job, Self.name("f2")), [[9]])
            #expect(fixture.temporaries.isEmpty)
        }
    }

    @Test func oddJobIDsStayWithinTheDirectory() async throws {
        try await Self.with { fixture in
            for id in ["..", ".", "...", ":", "-", "a:b", String(repeating: "x", count: 128)] {
                try await Self.write(fixture, .jobFile(Self.job(id), Self.name("f")), [[1]])
            }
            #expect(try fixture.names("jobs").count == 7)
            #expect(try Disk.entries(fixture.root).sorted() == ["jobs", "tmp", "uploads"])
        }
    }

    @Test(arguments: [
        "", "..", "../tmp", "ABCDEF00000000000000000000000001", "0", String(repeating: "0", count: 33), "/etc/passwd", "0/../0",
    ])
    func onlyOurOwnUploadIDsArePaths(_ id: String) async throws {
        try await Self.with { fixture in
            let found = try await fixture.store.upload(id)
            #expect(found == nil)
        }
    }

    @Test func symbolicLinksAreNotFollowed() async throws {
        try await Self.with { fixture in
            let secret = fixture.path("secret")
            let file = try DiskFile(creating: secret)
            try file.write(ByteBuffer(string: "secret"))
            try await Self.write(fixture, .jobFile(Self.job("j"), Self.name("real")), [[1]])
            #expect(symlink(secret, fixture.path("jobs/j-j/link")) == 0)
            #expect(try await fixture.store.openJobFile(Self.job("j"), Self.name("link")) == nil)
            // Writing over the link replaces the link, not what it points to.
            try await Self.write(fixture, .jobFile(Self.job("j"), Self.name("link")), [[7]])
            #expect((try Disk.openRegular(secret))?.bytes == 6)
            #expect(mkdir(fixture.path("jobs/j-j/dir"), 0o755) == 0 && mkfifo(fixture.path("jobs/j-j/fifo"), 0o644) == 0)
            for name in ["dir", "fifo"] { #expect(try await fixture.store.openJobFile(Self.job("j"), Self.name(name)) == nil) }
        }
    }

    @Test func theirTimeIsCountedFromTheLastUse() async throws {
        try await Self.with { fixture in
            let nowMs = GatewayEnvironment.system.nowMs()
            try await Self.write(fixture, .upload(id: Self.id(1), name: Self.name("old")), [[1]])
            try await Self.write(fixture, .upload(id: Self.id(2), name: Self.name("used")), [[1]])
            try await Self.write(fixture, .jobFile(Self.job("old"), Self.name("a")), [[1]])
            try await Self.write(fixture, .jobFile(Self.job("old"), Self.name("b")), [[1]])
            _ = try DiskFile(creating: fixture.path("tmp/unfinished"))
            #expect(await fixture.store.sweep(nowMs: nowMs) == 0)
            #expect(await fixture.store.sweep(nowMs: nowMs + 2 * 3600 * 1000) == 1)
            #expect(fixture.temporaries.isEmpty)
            for path in ["uploads/\(Self.id(1))", "uploads/\(Self.id(2))", "jobs/j-old"] {
                Self.age(fixture.path(path), byMs: 25 * 3600 * 1000)
            }
            _ = try await fixture.store.openUpload(Self.id(2))
            #expect(await fixture.store.sweep(nowMs: nowMs) == 2)
            #expect(try fixture.names("uploads") == [Self.id(2)])
            #expect(try fixture.names("jobs").isEmpty)
            #expect(await fixture.store.sweep(nowMs: nowMs + 2 * Self.day) == 1)
        }
    }

    /// A file that comes while its directory is being swept stays.
    @Test func aFreshFileKeepsItsDirectory() async throws {
        try await Self.with { fixture in
            let nowMs = GatewayEnvironment.system.nowMs()
            try await Self.write(fixture, .jobFile(Self.job("j"), Self.name("old")), [[1]])
            Self.age(fixture.path("jobs/j-j"), byMs: 25 * 3600 * 1000)
            try await Self.write(fixture, .jobFile(Self.job("j"), Self.name("fresh")), [[1]])
            Self.age(fixture.path("jobs/j-j"), byMs: 25 * 3600 * 1000, files: false)
            #expect(await fixture.store.sweep(nowMs: nowMs) == 0)
            #expect(try fixture.names("jobs/j-j") == ["fresh"])
        }
    }

    @Test func aDirectoryThatCannotBeUsedIsNamed() async throws {
        try await withTemporaryDirectory { root in
            let file = root + "/file"
            _ = try DiskFile(creating: file)
            let store = DirectoryBlobStore(root: file + "/data", limits: .init(), environment: .system)
            let error = await #expect(throws: GatewayError.self) { try await store.prepare() }
            #expect(error?.code == .invalidConfiguration && error?.message.contains(file) == true)
        }
    }

    private static func code(_ body: () async throws -> some Any) async -> GatewayError.Code? {
        do {
            _ = try await body()
            return nil
        } catch {
            return (error as? GatewayError)?.code
        }
    }

    /// Sets the times of a directory (and its files) back.
    private static func age(_ path: String, byMs ms: Int, files: Bool = true) {
        var times = [timespec(tv_sec: time(nil) - ms / 1000, tv_nsec: 0), timespec(tv_sec: time(nil) - ms / 1000, tv_nsec: 0)]
        if files { for name in (try? Disk.entries(path)) ?? [] { utimensat(AT_FDCWD, path + "/" + name, &times, 0) } }
        utimensat(AT_FDCWD, path, &times, 0)
    }
}

extension DiskFile {
    /// Opens what is there, for devices that refuse.
    fileprivate convenience init(opening path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw DiskError(errno: errno) }
        self.init(descriptor: descriptor)
    }
}
