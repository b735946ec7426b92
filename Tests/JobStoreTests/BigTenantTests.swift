import JobStore
import NIOCore
import ProgressCore
import RedisLink
import TestSupport
import Testing

/// A tenant with a hundred thousand jobs in line, and others that have a few (docs/decisions/0010-fair-turns.md).
@Suite(.timeLimit(.minutes(5))) struct BigTenantTests {
    private static let many = 100_000
    private static let queue = "headway:{0}:queue:gpu"

    private static func big(_ number: Int) -> String {
        let digits = "\(number)"
        return "a-" + String(repeating: "0", count: 6 - digits.count) + digits
    }

    /// By the script that every submit goes through, a hundred at a time.
    private func submitMany(_ fixture: StoreFixture) async throws {
        let script = try #require(JobStore.scripts.first { $0.name == "submit" })
        _ = try await fixture.redis.send(["SCRIPT", "LOAD", .string(script.source)])
        let (perCall, perWrite) = (100, 20)
        for first in stride(from: 0, to: Self.many, by: perCall * perWrite) {
            let calls = stride(from: first, to: first + perCall * perWrite, by: perCall).map { start -> [RedisArgument] in
                var call: [RedisArgument] = [
                    "EVALSHA", .string(script.sha1), "2", .string("headway:{0}:job:\(Self.big(start))"), "headway:{wake}:gpu", "PUBLISH",
                    "gpu", .int(perCall), "0", "p", "a/u", "5", "3", "3600000",
                ]
                for number in start..<start + perCall { call += [.string(Self.big(number)), "{}"] }
                return call
            }
            for reply in try await fixture.redis.pipeline(calls) {
                #expect(reply.array?.count == perCall && reply.array?.allSatisfy { $0.buffer != nil } == true, "\(reply)")
            }
        }
    }

    private func submit(_ fixture: StoreFixture, _ tenant: String, _ count: Int) async throws -> [JobID] {
        var jobs: [JobID] = []
        for number in 0..<count { jobs.append(try await fixture.submit("\(tenant)-\(number)") { $0.owner = Owner("\(tenant)/u") }) }
        return jobs
    }

    /// Claims and ends jobs until the last of `jobs` was given out; each comes when its position said. While both tenants wait, the jobs
    /// they were given, divided by their weights, differ by no more than the bound.
    private func serve(_ fixture: StoreFixture, until jobs: [JobID], weight: Double) async throws -> Int {
        var positions: [JobID: Int] = [:]
        for job in jobs { positions[job] = try await fixture.store.position(job, queue: "gpu") }
        var (served, other, turn) = (0.0, 0.0, 0)
        while Int(served) < jobs.count {
            let claim = try await fixture.claim()
            if let position = positions[claim.lease.job] {
                #expect(claim.lease.job == jobs[Int(served)] && position == turn, "\(claim.lease.job) was at \(position)")
                served += 1
            } else {
                #expect(claim.owner.tenant == "a")
                other += 1
            }
            #expect(abs(served / weight - other) <= 1 / weight + 1 + 1 / 240, "\(served) against \(other)")
            _ = try await fixture.store.finish(claim.lease, as: .complete, resultJSON: nil, stagesMs: [])
            turn += 1
        }
        return Int(other)
    }

    private func counts(_ fixture: StoreFixture, _ tenant: String) async throws -> [Int?] {
        try await fixture.redis.send(["HMGET", .string("\(Self.queue):tenant:\(tenant)"), "queued", "running"]).array?.map(\.int) ?? []
    }

    @Test func aHundredThousandJobsOfOneHoldUpNobody() async throws {
        var settings = StoreSettings()
        settings.lease = .seconds(300)
        settings.reapInterval = .zero
        try await StoreFixture.with(settings: settings) { fixture in
            let store = fixture.store
            try await store.registerQueues(["gpu"])
            try await submitMany(fixture)
            var left = Self.many
            #expect(try await counts(fixture, "a") == [left, nil])
            #expect(try await store.position(fixture.job(Self.big(left - 1)), queue: "gpu") == left - 1)
            // Some have had their turn when the others come.
            for _ in 0..<20 {
                _ = try await store.finish(fixture.claim().lease, as: .complete, resultJSON: nil, stagesMs: [])
            }
            left -= 20

            // Five jobs of b, of which none waits for more than the bound allows: two turns of a more than b has had.
            let few = try await submit(fixture, "b", 5)
            for (number, job) in few.enumerated() {
                let position = try #require(try await store.position(job, queue: "gpu"))
                #expect(position <= 2 * (number + 1), "\(job) is at \(position)")
            }
            try await expectCancelsToCount(fixture, few, &left)
            left -= try await serve(fixture, until: few, weight: 1)
            #expect(try await counts(fixture, "a") == [left, 0])
            #expect(try await counts(fixture, "b") == [0, 0])

            // Another with a weight of three has three turns for each of a's.
            try await store.configure(queue: "gpu", [.weightOf(tenant: "c", 3)])
            left -= try await serve(fixture, until: try await submit(fixture, "c", 9), weight: 3)
            #expect(try await counts(fixture, "a") == [left, 0])

            try await expectALimitToHoldUpNobody(fixture, left)
            try await expectNoFindings(fixture)
        }
    }

    /// What an audit looks at here: the tenants' counts against the line, and every hundredth job. (All of them take seconds.)
    private func expectNoFindings(_ fixture: StoreFixture) async throws {
        let script = try #require(JobStore.scripts.first { $0.name == "audit" })
        func look(_ key: String, _ what: [RedisArgument]) async throws -> [[String?]] {
            let reply = try await fixture.redis.send(["EVAL", .string(script.source), "2", .string(key), "headway:{wake}:gpu", "0"] + what)
            return (reply.array ?? []).map { $0.array?.map(\.string) ?? [] }
        }
        #expect(try await look("\(Self.queue):meta", ["line", "gpu"]) == [])
        // In sum only, and that is right.
        #expect(try await look("\(Self.queue):meta", ["counts", "gpu"]) == [["gpu", "not_counted", "0"]])
        let some = stride(from: 0, to: Self.many, by: 100).map { RedisArgument.string(Self.big($0)) }
        #expect(try await look("headway:{0}:job:a", ["jobs"] + some) == [])
    }

    /// One far behind, one before b's last: positions and counts follow at once.
    private func expectCancelsToCount(_ fixture: StoreFixture, _ few: [JobID], _ left: inout Int) async throws {
        let store = fixture.store
        let last = try fixture.job(Self.big(Self.many - 1))
        let before = try await store.position(last, queue: "gpu")
        #expect(before == left - 1 + few.count)
        #expect(try await store.cancel(fixture.job(Self.big(Self.many / 2)), by: "me", reason: nil) == .cancelled)
        #expect(try await store.position(last, queue: "gpu") == (before ?? 0) - 1)
        let line = try await fixture.redis.send(["ZRANGE", .string("\(Self.queue):ready"), "0", "20"]).array?.compactMap(\.string) ?? []
        let first = try #require(line.first { $0.hasPrefix("a-") })
        let place = try #require(try await store.position(few[4], queue: "gpu"))
        #expect(line.firstIndex(of: few[4].text) == place)
        #expect(try await store.cancel(fixture.job(first), by: "me", reason: nil) == .cancelled)
        #expect(try await store.position(few[4], queue: "gpu") == place - 1)
        left -= 2
        #expect(try await counts(fixture, "a") == [left, 0])
        #expect(try await counts(fixture, "b") == [few.count, nil])
        let status = try #require(try await store.status(ofQueues: ["gpu"]).first)
        #expect(status.ready == left + few.count && status.running == 0 && status.delayed == 0 && status.parked == 0)
    }

    /// a runs as much as it may: its jobs step aside, a hundred at a claim, and a newcomer is given out at once.
    private func expectALimitToHoldUpNobody(_ fixture: StoreFixture, _ left: Int) async throws {
        let store = fixture.store
        try await store.configure(queue: "gpu", [.maxRunningOf(tenant: "a", 1)])
        let running = try await fixture.claim()
        #expect(running.owner.tenant == "a")
        for turn in 0..<3 {
            guard case .empty = try await store.claim(queue: "gpu", worker: "w1", nonce: "over-\(turn)") else {
                Issue.record("a second job of the tenant was given out")
                return
            }
        }
        let late = try await submit(fixture, "d", 1)[0]
        #expect(try await fixture.claim().lease.job == late)
        let status = try #require(try await store.status(ofQueues: ["gpu"]).first)
        #expect(status.parked >= 300 && status.parked + status.ready == left - 1 && status.running == 2)
        #expect(try await counts(fixture, "a") == [left - 1, 1])
        // One ends, one of those that stepped aside comes back.
        _ = try await store.finish(running.lease, as: .complete, resultJSON: nil, stagesMs: [])
        #expect(try await fixture.claim().owner.tenant == "a")
        #expect(try await counts(fixture, "a") == [left - 2, 1])
    }
}
