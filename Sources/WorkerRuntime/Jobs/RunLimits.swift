import JobStore

/// What one run of a job may take before it is stopped.
struct RunLimits: Hashable {
    /// From the claim on.
    var runtimeMs: Int
    /// Without any news of its progress; nil: for ever.
    var stallMs: Int?
    /// In the job's directory; nil: what the disk holds.
    var quotaBytes: Int?

    /// The failure of a run that was stopped for `reason`; nil where that is no failure.
    func failure(for reason: StopReason) -> BackendError? {
        switch reason {
        case .timeout:
            BackendError(code: "timeout", message: "ran longer than the \(runtimeMs) ms it may", isRecoverable: true)
        case .stalled:
            BackendError(code: "stalled", message: "made no progress for \(stallMs ?? 0) ms", isRecoverable: true)
        case .quotaExceeded: .quotaExceeded(quotaBytes ?? 0)
        case .shutdown, .cancelled, .leaseLost: nil
        }
    }
}

extension BackendError {
    static func quotaExceeded(_ bytes: Int) -> BackendError {
        BackendError(
            code: "quota_exceeded",
            message: "the job's files are more than the \(bytes) bytes or the \(WorkerLimits.jobEntries) files that a job may have",
            isRecoverable: false
        )
    }

    static func diskFull(_ message: String) -> BackendError {
        BackendError(code: "disk_full", message: "the disk that holds the job's files is full: \(message)", isRecoverable: true)
    }
}

extension JobRun {
    /// Stops a run whose files are more than it may have. The pauses grow from a quarter of a second, so that a flood is seen early,
    /// and are long beside the time that the count takes.
    func watchQuota() async {
        guard let quota = limits.quotaBytes else { return }
        var pause = WorkerLimits.firstQuotaPause
        while !Task.isCancelled {
            try? await Task.sleep(for: pause)
            if Task.isCancelled { return }
            let start = ContinuousClock.now
            if await isOverQuota(quota) {
                stop.give(.quotaExceeded)
                return
            }
            pause = max(min(pause * 2, WorkerLimits.quotaPause), (ContinuousClock.now - start) * 20)
        }
    }

    func isOverQuota(_ quota: Int) async -> Bool {
        let path = directory.path
        let use = await onOwnThread { DiskUse.of(path, bytes: quota, entries: WorkerLimits.jobEntries) }
        return use.map { $0.bytes > quota || $0.entries > WorkerLimits.jobEntries } ?? false
    }

    /// Stops a run that says nothing new for too long.
    func watchStall(_ progress: JobProgress) async {
        guard let stallMs = limits.stallMs else { return }
        while !Task.isCancelled {
            let rest = progress.lastNewsAtMs + stallMs - environment.nowMs()
            if rest <= 0 {
                stop.give(.stalled)
                return
            }
            try? await Task.sleep(for: .milliseconds(min(rest, 60_000)))
        }
    }
}
