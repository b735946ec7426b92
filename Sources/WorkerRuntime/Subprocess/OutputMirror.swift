/// Takes a generator's output as it comes, besides its way into the log.
public struct OutputMirror: Sendable {
    public enum Unit: Sendable, Hashable {
        /// Everything, byte by byte.
        case bytes
        /// Whole lines without their ends, with their colours, without progress bars.
        case lines
    }

    public let unit: Unit
    let write: @Sendable (_ isError: Bool, UnsafeRawBufferPointer) -> Void

    /// - Parameter write: called on the generator's own thread, which waits for it; `isError` for stderr.
    public init(_ unit: Unit, write: @escaping @Sendable (_ isError: Bool, UnsafeRawBufferPointer) -> Void) {
        self.unit = unit
        self.write = write
    }
}
