import NIOCore
import NIOPosix

#if canImport(Glibc)
    import Glibc
#endif

/// A regular file, open for reading, whose content streams in pieces.
struct OpenFile: Sendable {
    let path: String
    let bytes: Int64
    let chunks: Chunks

    /// Throws what to change when `path` is absent, no regular file or not readable.
    static func open(_ path: String) throws(CommandError) -> OpenFile {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw .usage("\(path): \(SystemText.error(errno))") }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw .usage("\(path): not a regular file")
        }
        return OpenFile(path: path, bytes: Int64(status.st_size), chunks: Chunks(file: Descriptor(descriptor)))
    }

    /// The last part of the path.
    var name: String { path.split(separator: "/").last.map(String.init) ?? path }

    /// Closes the file when nobody refers to it any more.
    final class Descriptor: Sendable {
        let number: CInt
        init(_ number: CInt) { self.number = number }
        deinit { close(number) }
    }

    /// Each pass starts at the beginning of the file, so a request may be sent again.
    struct Chunks: AsyncSequence, Sendable {
        typealias Element = ByteBuffer
        let file: Descriptor

        struct AsyncIterator: AsyncIteratorProtocol {
            let file: Descriptor
            var offset = 0

            mutating func next() async throws -> ByteBuffer? {
                let (file, start) = (file, offset)
                // Reading may block on a slow disk: not on the pool of Swift's concurrency.
                let buffer = try await NIOThreadPool.singleton.runIfActive { () throws -> ByteBuffer in
                    var buffer = ByteBuffer()
                    _ = try buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: Limits.fileChunkBytes) { space in
                        let count = pread(file.number, space.baseAddress, space.count, start)
                        guard count >= 0 else { throw CommandError(.failed, "reading an input failed: \(SystemText.error(errno))") }
                        return count
                    }
                    return buffer
                }
                offset += buffer.readableBytes
                return buffer.readableBytes == 0 ? nil : buffer
            }
        }

        func makeAsyncIterator() -> AsyncIterator { AsyncIterator(file: file) }
    }
}

/// The operating system's own words.
enum SystemText {
    static func error(_ number: CInt) -> String {
        var text = [CChar](repeating: 0, count: 256)
        guard strerror_r(number, &text, text.count) == 0 else { return "error \(number)" }
        return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
