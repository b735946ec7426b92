import Glibc

/// Cuts a stream of bytes into lines, however it was split into reads. Holds at most one unfinished line of `limit` bytes.
struct LineSplitter {
    enum Overlong {
        /// The line is given up to the limit.
        case cut
        /// The line is not given at all.
        case skip
    }

    let limit: Int
    let overlong: Overlong
    /// A progress bar that redraws itself writes `\r` for every new line.
    let endsAtCarriageReturn: Bool
    /// The line whose end has not come yet, as far as it is kept.
    private(set) var unfinished: [UInt8] = []
    private var isOver = false
    /// Lines that were longer than the limit.
    private(set) var overlongLines = 0

    init(limit: Int, overlong: Overlong, endsAtCarriageReturn: Bool) {
        self.limit = limit
        self.overlong = overlong
        self.endsAtCarriageReturn = endsAtCarriageReturn
    }

    /// Gives every line that `chunk` completes, without its end; empty ones are left out.
    mutating func feed(_ chunk: UnsafeRawBufferPointer, line: (UnsafeRawBufferPointer) -> Void) {
        var rest = chunk[...]
        while let end = nextEnd(in: UnsafeRawBufferPointer(rebasing: rest)) {
            let piece = UnsafeRawBufferPointer(rebasing: rest.prefix(end))
            rest = rest.dropFirst(end + 1)
            complete(piece, line: line)
        }
        keep(UnsafeRawBufferPointer(rebasing: rest))
    }

    /// Gives the last line, which had no end.
    mutating func finish(line: (UnsafeRawBufferPointer) -> Void) {
        complete(UnsafeRawBufferPointer(start: nil, count: 0), line: line)
    }

    private func nextEnd(in bytes: UnsafeRawBufferPointer) -> Int? {
        guard let base = bytes.baseAddress, !bytes.isEmpty else { return nil }
        let newline = memchr(base, 0x0a, bytes.count).map { UnsafeRawPointer($0) - base }
        guard endsAtCarriageReturn else { return newline }
        return memchr(base, 0x0d, newline ?? bytes.count).map { UnsafeRawPointer($0) - base } ?? newline
    }

    private mutating func complete(_ piece: UnsafeRawBufferPointer, line: (UnsafeRawBufferPointer) -> Void) {
        if unfinished.isEmpty, !isOver, piece.count <= limit {
            // The usual case: the whole line lies in the chunk.
            if !piece.isEmpty { line(piece) }
            return
        }
        keep(piece)
        if isOver { overlongLines += 1 }
        if !isOver || overlong == .cut, !unfinished.isEmpty { unfinished.withUnsafeBytes(line) }
        unfinished.removeAll(keepingCapacity: true)
        isOver = false
    }

    private mutating func keep(_ piece: UnsafeRawBufferPointer) {
        let room = limit - unfinished.count
        if piece.count > room { isOver = true }
        if isOver, overlong == .skip {
            unfinished.removeAll(keepingCapacity: true)
        } else {
            unfinished.append(contentsOf: piece.prefix(max(0, room)))
        }
    }
}

/// Allows so many lines a second, and a burst of them after a silence.
struct LineBudget {
    let perSecond: Int
    let burst: Int
    private var available: Double
    private var at: Int

    init(perSecond: Int, burst: Int, atMs: Int) {
        self.perSecond = perSecond
        self.burst = burst
        self.available = Double(burst)
        self.at = atMs
    }

    mutating func take(atMs now: Int) -> Bool {
        available = min(Double(burst), available + Double(max(0, now - at)) * Double(perSecond) / 1000)
        at = max(at, now)
        guard available >= 1 else { return false }
        available -= 1
        return true
    }
}
