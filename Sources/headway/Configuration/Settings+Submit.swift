import JobStore

/// What `headway submit` is told.
extension Settings {
    static let submitQueue = Setting.text(
        "submit.queue",
        flag: "--queue",
        allowed: queueRule,
        help: "Queue of the new job.",
        where: isQueueName
    )
    static let submitPipeline = Setting.text(
        "submit.pipeline",
        flag: "--pipeline",
        default: "generic",
        allowed: "the name of a pipeline",
        help: "Pipeline of the new job."
    )
    static let submitParams = Setting.text(
        "submit.params",
        flag: "--params",
        default: "{}",
        allowed: "a JSON object, or @ and the path of a file with one",
        help: "What the generator is asked to do."
    )
    static let submitInputs = Setting.texts(
        "submit.inputs",
        flag: "--input",
        default: [],
        allowed: "a path",
        help: "Files to upload for the job."
    )
    static let submitID = Setting.text(
        "submit.id",
        flag: "--id",
        allowed: "1 to 128 characters of A-Z a-z 0-9 . _ : -",
        help: "Id of the new job; made up when not set."
    )
    static let submitPriority = Setting.integer(
        "submit.priority",
        flag: "--priority",
        default: nil,
        in: 0...9,
        help: "Priority of the new job; higher goes first."
    )
    static let submitPrefer = Setting.text(
        "submit.prefer",
        flag: "--prefer",
        allowed: labelRule,
        help: "Label of workers that should run the new job, if one is free soon.",
        where: StoreLimits.isLabel
    )
    static let submitClass = Setting.text(
        "submit.class",
        flag: "--class",
        allowed: "1–\(StoreLimits.nameBytes) bytes",
        help: "Kind of job or machine that the new job's durations are learned under.",
        where: { (1...StoreLimits.nameBytes).contains($0.utf8.count) }
    )
    static let submitCold = Setting.bool("submit.cold", flag: "--cold", help: "The new job has to load its models first.")
    static let submitParent = Setting.text(
        "submit.parent",
        flag: "--parent",
        allowed: "the id of a group",
        help: "Group that the new job is a child of."
    )
    static let submitChildren = Setting.integer(
        "submit.children",
        flag: "--children",
        default: nil,
        in: 1...StoreLimits.children,
        help: "The new job is a group of so many children and no work of its own."
    )
    static let submitWatch = Setting.bool("submit.watch", flag: "--watch", help: "Stay and watch the job until it ends.")
    static let submitOutput = Setting.text(
        "submit.output",
        flag: "--output",
        allowed: "a path",
        help: "With --watch: directory into which result files are downloaded."
    )
}
