import Glibc
import JobStore
import TestSupport
import Testing

@testable import WorkerRuntime

/// What one run of a job may take: time without progress, room on the disk.
@Suite(.timeLimit(.minutes(5))) struct RunLimitsTests {
    private func failure(
        of script: String,
        change: @escaping @Sendable (inout WorkerConfiguration) -> Void = { _ in }
    ) async throws -> String? {
        let error = Box<String?>(nil)
        try await WorkerFixture.with(script: script, change: change) { fixture in
            let job = try await fixture.submit("a") { $0.maxAttempts = 1 }
            error.set(try await fixture.end(of: job, within: .seconds(60)).fields["error"])
        }
        return error.value
    }

    // MARK: Quota

    @Test func aJobThatWritesTooMuchIsStopped() async throws {
        let error = try await failure(
            of: #"while :; do head -c 100000 /dev/zero >>"$HEADWAY_OUTPUT_DIR/big"; sleep 0.01; done"#,
            change: { $0.jobQuotaBytes = 1_000_000 }
        )
        #expect(error?.contains("\"quota_exceeded\"") == true && error?.contains("1000000") == true, "\(error ?? "none")")
    }

    @Test func aJobThatWroteTooMuchInOneGoFails() async throws {
        let error = try await failure(
            of: #"mkdir "$HEADWAY_OUTPUT_DIR/sub"; head -c 2000000 /dev/zero >"$HEADWAY_OUTPUT_DIR/sub/big""#,
            change: { $0.jobQuotaBytes = 1_000_000 }
        )
        #expect(error?.contains("\"quota_exceeded\"") == true, "\(error ?? "none")")
    }

    @Test func aJobWithinItsQuotaIsLeftAlone() async throws {
        let script = #"head -c 900000 /dev/zero >"$HEADWAY_OUTPUT_DIR/big"; sleep 1"#
        #expect(try await failure(of: script, change: { $0.jobQuotaBytes = 1_000_000 }) == nil)
    }

    @Test func theCountStopsAtItsBounds() async throws {
        try await withTemporaryDirectory { path in
            mkdir(path + "/a", 0o700)
            mkdir(path + "/a/b", 0o700)
            for (name, bytes) in [("x", 10), ("a/y", 200), ("a/b/z", 3000)] {
                let file = try #require(fopen("\(path)/\(name)", "w"))
                fputs(String(repeating: "x", count: bytes), file)
                fclose(file)
            }
            symlink("/", path + "/link")
            #expect(DiskUse.of(path, bytes: .max, entries: .max) == DiskUse(bytes: 3210, entries: 6))
            #expect(DiskUse.of(path, bytes: 5, entries: .max).bytes > 5)
            #expect(DiskUse.of(path, bytes: .max, entries: 2).entries < 6)
            #expect(DiskUse.of(path + "/absent", bytes: 1, entries: 1) == DiskUse())
        }
    }

    // MARK: Full disk

    @Test func aProgramThatFindsTheDiskFullFailsForThat() async throws {
        let error = try await failure(of: "head -c 10 /dev/zero >/dev/full")
        #expect(error?.contains("\"disk_full\"") == true && error?.contains("No space left on device") == true, "\(error ?? "none")")
        #expect(!DiskSpace.isMeant(by: "the generator exited with status 1: no CUDA device"))
    }

    @Test(.enabled(if: SmallDisk.isAllowed, "needs the right to mount a file system")) func aFullDiskIsNoticed() async throws {
        try await SmallDisk.with(kilobytes: 256) { disk in
            // It says nothing of why it failed.
            let script = #"head -c 1000000 /dev/zero >"$HEADWAY_OUTPUT_DIR/big" 2>/dev/null || exit 9"#
            let error = try await failure(of: script, change: { $0.workDirectory = disk + "/work" })
            #expect(error?.contains("\"disk_full\"") == true, "\(error ?? "none")")
            #expect(!DiskSpace.isFull("/"))
        }
    }

    // MARK: Standstill

    @Test func aJobThatStandsStillIsStopped() async throws {
        // It talks, and repeats itself, but it gets nowhere.
        let script = #"while :; do echo still here; echo '{"stage":"shape_generation","step":3,"steps":9}' >&3; sleep 0.1; done"#
        let error = try await failure(of: script, change: { $0.stallKill = .seconds(1) })
        #expect(error?.contains("\"stalled\"") == true && error?.contains("1000 ms") == true, "\(error ?? "none")")
    }

    @Test func aJobThatMovesIsNotStopped() async throws {
        let script = #"for i in $(seq 1 30); do echo "{\"step\":$i,\"steps\":30}" >&3; sleep 0.1; done"#
        #expect(try await failure(of: script, change: { $0.stallKill = .seconds(20) }) == nil)
    }
}

/// A file system that is quickly full.
enum SmallDisk {
    static let isAllowed: Bool = {
        guard let path = try? makeTemporaryDirectory() else { return false }
        defer { removeDirectory(path) }
        guard mount("tmpfs", path, "tmpfs", 0, "size=64k") == 0 else { return false }
        return umount2(path, 2) == 0
    }()

    static func with(kilobytes: Int, _ body: (String) async throws -> Void) async throws {
        try await withTemporaryDirectory { path in
            guard mount("tmpfs", path, "tmpfs", 0, "size=\(kilobytes)k") == 0 else {
                throw TestSupportError(.system, "mount failed with errno \(errno)")
            }
            // MNT_DETACH
            defer { umount2(path, 2) }
            try await body(path)
        }
    }
}
