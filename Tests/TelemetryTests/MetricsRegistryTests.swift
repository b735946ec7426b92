import Telemetry
import Testing

/// What a Prometheus server would complain about, checked on the text itself.
@Suite(.timeLimit(.minutes(5))) struct MetricsRegistryTests {
    @Test func theSameNameAndLabelsAreOneInstrument() {
        let registry = MetricsRegistry()
        let first = registry.counter("headway_test_things_total", help: "Things.", labels: ["kind": "a"])
        registry.counter("headway_test_things_total", help: "Things.", labels: ["kind": "a"]).increment(by: 2)
        registry.counter("headway_test_things_total", help: "Things.", labels: ["kind": "b"]).increment()
        first.increment()
        #expect(first.value == 3)
        let lines = registry.exposition().split(separator: "\n")
        #expect(
            lines.filter { $0.hasPrefix("headway_test_things_total{") }.sorted() == [
                "headway_test_things_total{kind=\"a\"} 3", "headway_test_things_total{kind=\"b\"} 1",
            ]
        )
    }

    @Test func helpAndTypeStandOnceBeforeTheirSamples() throws {
        let registry = filled()
        var described: Set<Substring> = []
        var typed: Set<Substring> = []
        for line in registry.exposition().split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 3)
            if line.hasPrefix("# HELP ") {
                #expect(described.insert(words[2]).inserted, "HELP twice: \(line)")
                #expect(words.count == 4, "empty help: \(line)")
            } else if line.hasPrefix("# TYPE ") {
                #expect(described.contains(words[2]), "TYPE before HELP: \(line)")
                #expect(typed.insert(words[2]).inserted, "TYPE twice: \(line)")
                #expect(["counter", "gauge", "histogram"].contains(String(words[3])))
            } else {
                let name = line.prefix { $0 != "{" && $0 != " " }
                let family = ["_bucket", "_sum", "_count"].reduce(name) {
                    $0.hasSuffix($1) && typed.contains($0.dropLast($1.count)) ? $0.dropLast($1.count) : $0
                }
                #expect(typed.contains(family), "sample before its TYPE: \(line)")
                #expect(Double(line.split(separator: " ").last ?? "") != nil, "no number: \(line)")
            }
        }
        #expect(typed.count == 4)
        #expect(registry.exposition().hasSuffix("\n"))
    }

    @Test func bucketsAreCumulativeAndEndInTheCount() throws {
        let registry = MetricsRegistry()
        let histogram = registry.histogram("headway_test_seconds", help: "Time.", labels: ["route": "/x"])
        let values = [0, 400, 500, 501, 3000, 9_999_999, 10_000_001, 60_000_000]
        for value in values { histogram.record(microseconds: value) }
        var last = 0
        var bounds: [Double] = []
        for line in registry.exposition().split(separator: "\n") where line.hasPrefix("headway_test_seconds_bucket") {
            let count = try #require(Int(line.split(separator: " ").last ?? ""))
            #expect(count >= last, "not cumulative: \(line)")
            last = count
            let bound = try #require(line.split(separator: "\"").dropLast().last)
            if bound != "+Inf" {
                let seconds = try #require(Double(bound))
                bounds.append(seconds)
                #expect(count == values.filter { Double($0) / 1_000_000 <= seconds }.count, "\(line)")
            }
        }
        #expect(bounds == bounds.sorted())
        #expect(last == values.count)
        #expect(registry.exposition().contains("headway_test_seconds_count{route=\"/x\"} \(values.count)\n"))
        #expect(registry.exposition().contains("headway_test_seconds_sum{route=\"/x\"} \(Double(values.reduce(0, +)) / 1_000_000)\n"))
    }

    @Test func labelValuesAreEscaped() {
        let registry = MetricsRegistry()
        registry.gauge("headway_test_level", help: "Level.", labels: ["path": "a\"b\\c\nd"]).set(-4)
        #expect(registry.exposition().contains("headway_test_level{path=\"a\\\"b\\\\c\\nd\"} -4\n"))
    }

    @Test func everyNameFollowsTheRule() {
        let names: [MetricName] = [
            .httpConnections, .httpConnectionsTotal, .httpConnectionsRefused, .httpRequests, .httpDuration, .httpTimeouts, .httpMalformed,
            .uploadedBytes, .servedBytes, .blobsSwept, .gatewayLink, .gatewayDraining,
        ]
        #expect(Set(names.map(\.text)).count == names.count)
        for name in names {
            #expect(name.text.hasPrefix("headway_gateway_"))
            #expect(name.text.utf8.allSatisfy { ($0 >= 0x61 && $0 <= 0x7a) || $0 == 0x5f })
            #expect(name.help.hasSuffix(".") && !name.help.contains("\n"))
        }
    }

    @Test func manyThreadsLoseNothing() async {
        let registry = MetricsRegistry()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let counter = registry.counter("headway_test_total", help: "Test.")
                    let histogram = registry.histogram("headway_test_seconds", help: "Test.")
                    for value in 0..<1000 {
                        counter.increment()
                        histogram.record(microseconds: value)
                    }
                }
            }
        }
        #expect(registry.exposition().contains("headway_test_total 8000\n"))
        #expect(registry.exposition().contains("headway_test_seconds_count 8000\n"))
    }

    private func filled() -> MetricsRegistry {
        let registry = MetricsRegistry()
        registry.counter(.httpRequests, labels: ["route": "/v1/jobs", "class": "2xx"]).increment()
        registry.counter(.httpRequests, labels: ["route": "/v1/jobs", "class": "4xx"]).increment()
        registry.gauge(.httpConnections).set(3)
        registry.histogram(.httpDuration, labels: ["route": "/v1/jobs"]).record(microseconds: 700)
        registry.histogram(.httpDuration, labels: ["route": "/v1/ws"]).record(microseconds: 900)
        registry.counter(.httpTimeouts).increment()
        return registry
    }
}
