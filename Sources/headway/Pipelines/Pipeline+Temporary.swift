import ProgressCore

extension Pipeline {
    init(validating name: String, stages: [Stage]) throws(CommandError) {
        let sum = stages.reduce(0) { $0 + $1.weight }
        guard stages.isEmpty || abs(sum - 1) < 0.001 else { throw .usage("pipeline \(name): the weights add up to \(sum), not to 1") }
        guard Set(stages.map(\.name)).count == stages.count else { throw .usage("pipeline \(name): two stages have one name") }
        guard zip(stages, stages.dropFirst()).allSatisfy({ $0.phase.rank <= $1.phase.rank }) else {
            throw .usage("pipeline \(name): phases must not go back")
        }
        self.init(name: name, stages: stages)
    }
}
