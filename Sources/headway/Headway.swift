import ArgumentParser
@main struct Headway: ParsableCommand {}
