import NIOCore
import ProgressCore
import Testing

@testable import JobStore

struct KeysTests {
    @Test func crc16MatchesTheClusterSpecification() {
        #expect(Keys.crc16("123456789".utf8) == 0x31c3)
        #expect(Keys.crc16("".utf8) == 0)
    }

    @Test func onePartitionHasTagZero() throws {
        let keys = Keys()
        let job = try #require(JobID("a~3"))
        #expect(keys.tag(0) == "0")
        #expect(keys.job(job) == "headway:{0}:job:a~3")
        #expect(keys.live(job) == "headway:{0}:live:a~3")
        #expect(keys.queue("gpu", .ready, partition: 0) == "headway:{0}:queue:gpu:ready")
        #expect(keys.wake("gpu") == "headway:{wake}:gpu")
    }

    @Test(arguments: [2, 3, 7, 16, 64])
    func tagOfAPartitionIsTheSmallestNumberInItsSlice(partitions: Int) {
        let keys = Keys(partitions: partitions)
        for index in 0..<partitions {
            let number = Int(keys.tag(index)) ?? -1
            #expect(slice(number, partitions) == index)
            #expect(!(0..<number).contains { slice($0, partitions) == index })
        }
    }

    private func slice(_ number: Int, _ partitions: Int) -> Int {
        (Int(Keys.crc16("\(number)".utf8)) % 16_384) * partitions / 16_384
    }

    @Test func childrenLiveInTheirParentsPartition() throws {
        let keys = Keys(partitions: 64)
        var seen: Set<Int> = []
        for number in 0..<2000 {
            let parent = try #require(JobID("job-\(number)"))
            let child = try #require(JobID("job-\(number)~\(number % 7 + 1)"))
            #expect(keys.partition(of: parent) == keys.partition(of: child))
            seen.insert(keys.partition(of: parent))
        }
        #expect(seen.count == 64)
    }

    @Test func channelsLeadBackToTheirJob() throws {
        let keys = Keys(prefix: "x", partitions: 5)
        for number in 0..<500 {
            let job = try #require(JobID("j:\(number)._-~7"))
            #expect(keys.job(ofChannel: ByteBuffer(string: keys.live(job))) == job)
        }
        #expect(keys.job(ofChannel: ByteBuffer(string: "x:{0}:liv:a")) == nil)
        #expect(keys.job(ofChannel: ByteBuffer(string: "")) == nil)
        #expect(keys.job(ofChannel: ByteBuffer(string: keys.live(try #require(JobID("a"))) + "/")) == nil)
    }

    @Test func everyKeyIsKnownByItsName() throws {
        for keys in [Keys(), Keys(prefix: "x-1", partitions: 3)] {
            let job = try #require(JobID("a:b~3"))
            let partition = keys.partition(of: job)
            #expect(keys.kind(of: keys.job(job)) == .job(job))
            #expect(keys.kind(of: keys.milestones(job)) == .milestones)
            #expect(keys.kind(of: keys.group(job)) == .group(job))
            #expect(keys.kind(of: keys.group(job) + ":eta") == .passing)
            #expect(keys.kind(of: keys.queue("gpu", .meta, partition: partition)) == .queueMeta("gpu", partition: partition))
            #expect(
                keys.kind(of: keys.queue(Keys.heldQueue, .leases, partition: partition)) == .place("_", partition: partition, lasts: true)
            )
            #expect(keys.kind(of: keys.parked("a:b", of: "gpu", partition: partition)) == .place("gpu", partition: partition, lasts: false))
            for key in [
                keys.log(job), keys.preview(job), keys.tenant("a:b", of: "gpu", partition: partition), keys.worker("w"), keys.audit,
            ] {
                #expect(keys.kind(of: key) == .passing, "\(key)")
            }
            #expect(keys.kind(of: keys.wake("gpu", label: "sdxl.1")) == .passing)
            for key in [keys.meta, keys.queues, keys.workers, keys.wake("gpu")] { #expect(keys.kind(of: key) == .lasting, "\(key)") }
            for key in ["else", "{0}", "{0}:", "{0}:job:a b", "{0}:queue:gpu:x", "{0}:queue:G:ready", "{77}:job:a", "{", "{}"] {
                #expect(keys.kind(of: "\(keys.prefix):\(key)") == .unknown, "\(key)")
            }
            #expect(keys.kind(of: "other:meta") == nil && keys.kind(of: keys.prefix) == nil)
        }
    }
}
