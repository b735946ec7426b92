import Glibc
import Synchronization

/// The kernel's random numbers, fetched some at a time: a worker of short jobs wants several for each, and the system's own generator
/// asks the kernel for every one.
public struct PooledRandom: RandomNumberGenerator, Sendable {
    /// The most that `getentropy` gives at once.
    private static let batchBytes = 256

    private struct Pool {
        var numbers = [UInt64](repeating: 0, count: PooledRandom.batchBytes / MemoryLayout<UInt64>.size)
        var left = 0
    }

    private static let pool = Mutex(Pool())

    public init() {}

    /// 64 random bits that nobody else gets.
    public func next() -> UInt64 {
        Self.pool.withLock { pool in
            if pool.left == 0 {
                guard pool.numbers.withUnsafeMutableBytes({ $0.baseAddress.map { getentropy($0, Self.batchBytes) } }) == 0 else {
                    var system = SystemRandomNumberGenerator()
                    return system.next()
                }
                pool.left = pool.numbers.count
            }
            pool.left -= 1
            // Told once: what was given away stays nowhere.
            defer { pool.numbers[pool.left] = 0 }
            return pool.numbers[pool.left]
        }
    }
}
