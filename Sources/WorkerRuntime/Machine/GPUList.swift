import JobStore
import ProgressCore

/// The GPUs of a machine as `nvidia-smi` lists them.
enum GPUList {
    /// What `nvidia-smi` is asked; `parse` reads its answer. See `nvidia-smi --help-query-gpu`.
    static let arguments = ["--query-gpu=index,uuid,memory.total,memory.used,name", "--format=csv,noheader,nounits"]

    /// Reads lines like `0, GPU-5a3c…, 143771, 1, NVIDIA H200`. A memory that the driver does not tell (`[N/A]`,
    /// `[Not Supported]`) is nil; lines that are none of these are left out.
    ///
    /// - Parameter visible: the value of `CUDA_VISIBLE_DEVICES`, by which a process is bound to some of the GPUs; nil: all.
    static func parse(_ text: String, visible: String? = nil) -> [WorkerRecord.GPU] {
        var found: [(index: String, uuid: String, gpu: WorkerRecord.GPU)] = []
        for line in text.split(whereSeparator: \.isNewline) where found.count < WorkerLimits.gpus {
            let cells = line.split(separator: ",", maxSplits: 4, omittingEmptySubsequences: false).map(trimmed)
            guard cells.count == 5, Int(cells[0]) != nil, !cells[4].isEmpty else { continue }
            let gpu = WorkerRecord.GPU(
                name: MessageText.sanitised(cells[4], limit: WorkerLimits.gpuNameBytes),
                memoryMB: megabytes(cells[2]),
                memoryUsedMB: megabytes(cells[3])
            )
            found.append((cells[0], cells[1], gpu))
        }
        guard let visible else { return found.map(\.gpu) }
        // As CUDA reads it: indices or beginnings of UUIDs, up to the first that names no device.
        var chosen: [WorkerRecord.GPU] = []
        for entry in visible.split(separator: ",", omittingEmptySubsequences: false).map(trimmed) {
            guard let match = found.first(where: { $0.index == entry || (entry.hasPrefix("GPU-") && $0.uuid.hasPrefix(entry)) }) else {
                break
            }
            chosen.append(match.gpu)
        }
        return chosen
    }

    private static func megabytes(_ text: String) -> Int? { Int(text).flatMap { $0 >= 0 ? $0 : nil } }

    private static func trimmed(_ text: Substring) -> String {
        var text = text
        while text.first?.isWhitespace == true { text.removeFirst() }
        while text.last?.isWhitespace == true { text.removeLast() }
        return String(text)
    }
}
