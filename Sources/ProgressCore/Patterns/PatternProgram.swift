/// An expression as instructions, and the machine that runs them over a line.
struct PatternProgram: Sendable {
    private enum Instruction {
        /// A character of the set with this number.
        case one(Int)
        /// Both ways, the first preferred.
        case fork(Int, Int)
        case jump(Int)
        case save(Int)
        case condition(PatternCondition)
        case match
    }

    private var instructions: [Instruction] = []
    private var sets: [ScalarSet] = []
    private let slots: Int
    private let requiredText: [UInt8]

    init(_ tree: PatternTree, groups: Int) throws(LinePatternError) {
        slots = groups * 2
        requiredText = tree.requiredText
        try emit(tree)
        try add(.match)
    }

    // MARK: Making it

    private mutating func add(_ instruction: Instruction) throws(LinePatternError) {
        guard instructions.count < ProgressLimits.patternInstructions else {
            throw LinePatternError(
                .tooLarge,
                at: nil,
                "is too large: its repetitions add up to more than \(ProgressLimits.patternInstructions) steps"
            )
        }
        instructions.append(instruction)
    }

    private mutating func emit(_ tree: PatternTree) throws(LinePatternError) {
        switch tree {
        case .empty: break
        case .one(let set):
            try add(.one(sets.count))
            sets.append(set)
        case .condition(let condition): try add(.condition(condition))
        case .sequence(let parts): for part in parts { try emit(part) }
        case .capture(let group, let inner):
            try add(.save(group * 2))
            try emit(inner)
            try add(.save(group * 2 + 1))
        case .either(let list):
            var jumps: [Int] = []
            for (index, part) in list.enumerated() {
                guard index < list.count - 1 else {
                    try emit(part)
                    break
                }
                let fork = instructions.count
                try add(.fork(fork + 1, 0))
                try emit(part)
                jumps.append(instructions.count)
                try add(.jump(0))
                instructions[fork] = .fork(fork + 1, instructions.count)
            }
            for jump in jumps { instructions[jump] = .jump(instructions.count) }
        case .repeated(let inner, let least, let most, let isLazy):
            for _ in 0..<least { try emit(inner) }
            if let most {
                try emitOptional(inner, times: most - least, isLazy: isLazy)
            } else {
                let fork = instructions.count
                try add(.fork(0, 0))
                try emit(inner)
                try add(.jump(fork))
                instructions[fork] = isLazy ? .fork(instructions.count, fork + 1) : .fork(fork + 1, instructions.count)
            }
        }
    }

    private mutating func emitOptional(_ inner: PatternTree, times: Int, isLazy: Bool) throws(LinePatternError) {
        var forks: [Int] = []
        for _ in 0..<times {
            forks.append(instructions.count)
            try add(.fork(0, 0))
            try emit(inner)
        }
        let end = instructions.count
        for fork in forks { instructions[fork] = isLazy ? .fork(end, fork + 1) : .fork(fork + 1, end) }
    }

    // MARK: Running it

    /// The places of the groups in the first match.
    func firstMatch(in line: PatternLine) -> [Range<Int>?]? {
        guard line.contains(requiredText) else { return nil }
        var run = Run(program: self, line: line.scalars)
        guard let saved = run.search() else { return nil }
        return (0..<slots / 2).map { group in
            let (start, end) = (saved[group * 2], saved[group * 2 + 1])
            return start >= 0 && end >= start ? start..<end : nil
        }
    }

    /// All threads that are alive between two characters, the preferred first. None runs an instruction that another one has run at
    /// the same place: so there are never more than instructions.
    private struct Threads {
        var counters: [Int] = []
        /// `slots` numbers for each thread.
        var saved: [Int] = []

        mutating func removeAll() {
            counters.removeAll(keepingCapacity: true)
            saved.removeAll(keepingCapacity: true)
        }
    }

    private struct Run {
        let program: PatternProgram
        let line: [UInt32]
        /// The place at which an instruction was last reached, by its number.
        var reached: [Int]
        var stack: [(counter: Int, slot: Int, old: Int)] = []

        init(program: PatternProgram, line: [UInt32]) {
            self.program = program
            self.line = line
            reached = Array(repeating: -1, count: program.instructions.count)
        }

        mutating func search() -> [Int]? {
            var found: [Int]?
            var current = Threads()
            var next = Threads()
            let unsaved = [Int](repeating: -1, count: program.slots)
            // What is reached at a place is marked with its number; the first place has nothing marked.
            for index in 0...line.count {
                // Another match may begin here, with the least preference, unless one was found that began earlier.
                if found == nil { add(0, at: index, saved: unsaved, to: &current) }
                if found != nil, current.counters.isEmpty { break }
                next.removeAll()
                thread: for (number, counter) in current.counters.enumerated() {
                    switch program.instructions[counter] {
                    case .match:
                        found = Array(current.saved[number * program.slots..<(number + 1) * program.slots])
                        // The rest is less preferred.
                        break thread
                    case .one(let set):
                        guard index < line.count, program.sets[set].contains(line[index]) else { continue }
                        let saved = Array(current.saved[number * program.slots..<(number + 1) * program.slots])
                        add(counter + 1, at: index + 1, saved: saved, to: &next)
                    default: continue
                    }
                }
                swap(&current, &next)
            }
            return found
        }

        /// Follows everything that takes no character.
        private mutating func add(_ counter: Int, at index: Int, saved: [Int], to threads: inout Threads) {
            var saved = saved
            stack.append((counter, -1, 0))
            while let (counter, slot, old) = stack.popLast() {
                if slot >= 0 {
                    // Back out of a group: what it had saved does not hold for the less preferred way.
                    saved[slot] = old
                    continue
                }
                if reached[counter] == index { continue }
                reached[counter] = index
                switch program.instructions[counter] {
                case .jump(let target): stack.append((target, -1, 0))
                case .fork(let first, let second):
                    stack.append((second, -1, 0))
                    stack.append((first, -1, 0))
                case .save(let slot):
                    stack.append((0, slot, saved[slot]))
                    saved[slot] = index
                    stack.append((counter + 1, -1, 0))
                case .condition(let condition):
                    if condition.holds(at: index, in: line) { stack.append((counter + 1, -1, 0)) }
                case .one, .match:
                    threads.counters.append(counter)
                    threads.saved.append(contentsOf: saved)
                }
            }
        }
    }
}
