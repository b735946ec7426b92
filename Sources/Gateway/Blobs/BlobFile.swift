import Glibc
import NIOCore
import NIOPosix

/// An open file of the store; closed when nobody holds it any more.
final class BlobFile: Sendable {
    let bytes: Int
    private let descriptor: Int32
    private let pool: NIOThreadPool

    /// Takes the descriptor over.
    init(descriptor: Int32, bytes: Int, pool: NIOThreadPool) {
        self.descriptor = descriptor
        self.bytes = bytes
        self.pool = pool
    }

    deinit { close(descriptor) }

    /// Up to `count` bytes from `offset`; fewer only at the end of the file.
    func read(at offset: Int, count: Int, on eventLoop: any EventLoop) -> EventLoopFuture<ByteBuffer> {
        pool.runIfActive(eventLoop: eventLoop) {
            var buffer = ByteBufferAllocator().buffer(capacity: count)
            while buffer.readableBytes < count {
                let position = off_t(offset + buffer.readableBytes)
                let wanted = count - buffer.readableBytes
                let got = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: wanted) { space in
                    max(0, pread(self.descriptor, space.baseAddress, wanted, position))
                }
                if got == 0 { break }
            }
            return buffer
        }
    }
}
