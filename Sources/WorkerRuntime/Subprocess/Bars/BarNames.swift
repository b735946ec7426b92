import ProgressCore

/// Which stage of a pipeline a bar's title means.
struct BarNames {
    struct Meaning: Hashable {
        /// Nil: the stage that runs now, or the whole job.
        var stage: String?
        /// The part of the stage that the bar goes through, in percent.
        var from = 0.0
        var to = 100.0

        var isWhole: Bool { from == 0 && to == 100 }
    }

    private let stages: [Pipeline.Stage]

    init(_ pipeline: Pipeline) {
        stages = pipeline.stages
    }

    /// A stage that lists the title among its bars, or has the title for its name; else the title itself, without what changes
    /// from one bar to the next.
    ///
    /// - Parameter isFirst: no bar with a title was seen yet. A job that only ever draws bars without one has no stages; once
    ///   there are some, the nameless bar is one of them.
    func meaning(of title: String, isFirst: Bool) -> Meaning {
        for stage in stages {
            for bar in stage.bars where bar.matches(title) { return Meaning(stage: stage.name, from: bar.from, to: bar.to) }
        }
        if title.isEmpty { return Meaning(stage: stages.isEmpty && !isFirst ? "steps" : nil) }
        let folded = Self.folded(title)
        if let stage = stages.first(where: { Self.folded($0.name) == folded }) { return Meaning(stage: stage.name) }
        return Meaning(stage: Self.stableName(title))
    }

    func isOwnStage(_ name: String?) -> Bool { stages.contains { $0.name == name } }

    /// Lower case, with one spelling of the gaps between words.
    private static func folded(_ text: String) -> [UInt8] {
        text.utf8.map { byte in
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): byte | 0x20
            case UInt8(ascii: " "), UInt8(ascii: "-"): UInt8(ascii: "_")
            default: byte
            }
        }
    }

    /// The title without the words that hold digits (`Epoch 3/10`, `Decoding [r384]`, `loss 0.12`), unless nothing else is left.
    static func stableName(_ title: String) -> String {
        let words = title.utf8.split(separator: UInt8(ascii: " "))
        let stable = words.filter { word in !word.contains(where: BarText.isDigit) && word.contains(where: BarText.isLetter) }
        let name = stable.isEmpty ? title : stable.map { String(decoding: $0, as: UTF8.self) }.joined(separator: " ")
        var bytes = Array(name.utf8.prefix(ProgressLimits.stageNameBytes))
        while let last = bytes.last, [UInt8(ascii: " "), UInt8(ascii: "."), UInt8(ascii: ":"), UInt8(ascii: ",")].contains(last) {
            bytes.removeLast()
        }
        return bytes.isEmpty ? name : String(decoding: bytes, as: UTF8.self)
    }

    /// What tells one kind of bar from another: the title with every number replaced.
    static func key(_ title: String) -> String {
        var key: [UInt8] = []
        for byte in title.utf8.prefix(200) {
            if BarText.isDigit(byte) {
                if key.last != UInt8(ascii: "#") { key.append(UInt8(ascii: "#")) }
            } else {
                key.append(byte)
            }
        }
        return String(decoding: key, as: UTF8.self)
    }

    /// `3` and `10` of `Epoch 3/10`: which round of how many the bar is, when the title says so.
    static func round(_ title: String) -> (index: Double, of: Double)? {
        let text = BarText(bytes: Array(title.utf8.prefix(200)))
        var found: (Double, Double)?
        var index = 0
        while index < text.count {
            guard BarText.isDigit(text.byte(index)), index == 0 || " ([".utf8.contains(text.byte(index - 1)) else {
                index += 1
                continue
            }
            var end = index
            guard let (first, second) = text.ratio(&end), let second, first.isWhole, second.isWhole else {
                index += 1
                continue
            }
            // Two of them: no telling which counts.
            if found != nil { return nil }
            found = (first.value, second.value)
            index = end
        }
        guard let found, found.1 >= 1, found.0 <= found.1 else { return nil }
        return found
    }
}
