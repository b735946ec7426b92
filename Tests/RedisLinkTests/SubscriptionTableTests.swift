import NIOCore
import NIOPosix
import TestSupport
import Testing

@testable import RedisLink

/// The table against a model server that handles commands in order and answers late.
@Suite(.timeLimit(.minutes(5)))
struct SubscriptionTableTests {
    /// What a Redis would do with the commands of one connection.
    private struct Server {
        var subscribed: Set<String> = []
        var answers: [(channel: String, isSubscribe: Bool)] = []

        mutating func handle(_ command: SubscriptionTable.Command) {
            switch command {
            case .subscribe(let channels):
                subscribed.formUnion(channels)
                answers += channels.map { ($0, true) }
            case .unsubscribe(let channels):
                subscribed.subtract(channels)
                answers += channels.map { ($0, false) }
            }
        }
    }

    private struct Waiting {
        let ticket: SubscribeTicket
        /// Without those that were done for the ticket once: unsubscribed since, or acknowledged on a connection that is lost.
        var channels: Set<String>
    }

    private let loop = MultiThreadedEventLoopGroup.singleton.any()

    private func ticket(_ count: Int = 1) -> SubscribeTicket {
        SubscribeTicket(channels: count, deadline: .distantFuture, promise: loop.makePromise())
    }

    private func limits(perCommand: Int = 3, unacknowledged: Int = 10) -> RedisLimits {
        var limits = RedisLimits()
        limits.channelsPerCommand = perCommand
        limits.unacknowledgedChannelsMax = unacknowledged
        return limits
    }

    private func commands(_ table: inout SubscriptionTable) -> [SubscriptionTable.Command] {
        var result: [SubscriptionTable.Command] = []
        while let command = table.nextCommand() { result.append(command) }
        return result
    }

    @Test func randomWishesEndAsWished() async {
        for seed in 0..<2_000 {
            // The tests with real servers run beside this one, on the same threads.
            await Task.yield()
            var generator = SeededGenerator(seed: UInt64(seed) | 1 << 43)
            var table = SubscriptionTable(limits: limits())
            var server = Server()
            var wanted: Set<String> = []
            var visible: Set<String> = []
            var waiting: [Waiting] = []

            func answer(_ count: Int) {
                for _ in 0..<min(count, server.answers.count) {
                    let (channel, isSubscribe) = server.answers.removeFirst()
                    if isSubscribe {
                        visible.insert(channel)
                        table.acknowledgedSubscribe(channel)
                    } else {
                        visible.remove(channel)
                        table.acknowledgedUnsubscribe(channel)
                    }
                }
            }
            func check() {
                for entry in waiting where entry.ticket.isDone {
                    #expect(entry.channels.allSatisfy { !wanted.contains($0) || visible.contains($0) }, "seed \(seed)")
                }
                waiting.removeAll { $0.ticket.isDone }
                #expect(table.unacknowledged <= 10)
            }

            for _ in 0..<60 {
                let channels = (0..<Int.random(in: 1...5, using: &generator)).map { _ in "c\(Int.random(in: 0..<6, using: &generator))" }
                switch Int.random(in: 0..<10, using: &generator) {
                case 0..<4:
                    let entry = Waiting(ticket: ticket(channels.count), channels: Set(channels))
                    wanted.formUnion(channels)
                    waiting.append(entry)
                    for channel in channels { table.subscribe(channel, entry.ticket) }
                case 4..<6:
                    wanted.subtract(channels)
                    for index in waiting.indices { waiting[index].channels.subtract(channels) }
                    for channel in channels { table.unsubscribe(channel) }
                case 6: while let command = table.nextCommand() { server.handle(command) }
                case 7 where Int.random(in: 0..<4, using: &generator) == 0:
                    server = Server()
                    for index in waiting.indices { waiting[index].channels.subtract(visible) }
                    visible = []
                    table.connectionLost()
                    table.connectionReady(isRestore: true)
                default: answer(Int.random(in: 0...8, using: &generator))
                }
                check()
            }
            while table.hasQueued || !server.answers.isEmpty {
                while let command = table.nextCommand() { server.handle(command) }
                answer(1_000)
                check()
            }
            #expect(server.subscribed == wanted, "seed \(seed)")
            #expect(waiting.isEmpty, "seed \(seed)")
            #expect(table.restoring == 0, "seed \(seed)")
            #expect(table.wantedCount == wanted.count, "seed \(seed)")
        }
    }

    @Test func quickSecondThoughtsSendNothing() {
        var table = SubscriptionTable(limits: limits())
        table.connectionReady(isRestore: false)
        let first = ticket()
        table.subscribe("a", first)
        #expect(commands(&table) == [.subscribe(["a"])])
        table.acknowledgedSubscribe("a")
        #expect(first.isDone)
        table.unsubscribe("a")
        let second = ticket()
        table.subscribe("a", second)
        #expect(commands(&table).isEmpty)
        #expect(second.isDone)
    }

    @Test func secondSubscriptionWaitsForItsOwnAnswer() {
        var table = SubscriptionTable(limits: limits())
        let first = ticket()
        table.subscribe("a", first)
        #expect(commands(&table) == [.subscribe(["a"])])
        table.unsubscribe("a")
        #expect(first.isDone)
        #expect(commands(&table) == [.unsubscribe(["a"])])
        let second = ticket()
        table.subscribe("a", second)
        #expect(commands(&table) == [.subscribe(["a"])])
        table.acknowledgedSubscribe("a")
        #expect(!second.isDone)
        table.acknowledgedUnsubscribe("a")
        #expect(!second.isDone)
        table.acknowledgedSubscribe("a")
        #expect(second.isDone)
    }

    @Test func commandsAreBatchedAndAcknowledgementsBounded() {
        var table = SubscriptionTable(limits: limits(perCommand: 4, unacknowledged: 10))
        let all = ticket(25)
        for number in 0..<25 { table.subscribe("c\(number)", all) }
        var sent: [[String]] = []
        for command in commands(&table) { if case .subscribe(let channels) = command { sent.append(channels) } }
        #expect(sent.map(\.count) == [4, 4, 2])
        for channel in sent.joined() { table.acknowledgedSubscribe(channel) }
        #expect(commands(&table).count == 3)
        #expect(!all.isDone)
    }

    @Test func lossKeepsWishesAndThoseWhoWait() {
        var table = SubscriptionTable(limits: limits())
        let waiting = ticket()
        table.subscribe("a", waiting)
        table.subscribe("b", ticket())
        _ = commands(&table)
        table.unsubscribe("b")
        table.connectionLost()
        #expect(!waiting.isDone)
        table.connectionReady(isRestore: true)
        #expect(table.restoring == 1)
        #expect(commands(&table) == [.subscribe(["a"])])
        table.acknowledgedSubscribe("a")
        #expect(waiting.isDone)
        #expect(table.restoring == 0)
    }

    @Test func refusalEndsTheWaitAndTheWish() {
        var table = SubscriptionTable(limits: limits())
        table.subscribe("a", ticket())
        _ = commands(&table)
        table.refused(["a"], RedisError(.authentication, "no"))
        #expect(table.wantedCount == 0)
        #expect(table.unacknowledged == 0)
    }
}
