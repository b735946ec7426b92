// swift-tools-version: 6.2
import PackageDescription

/// One set of settings for every Swift target of ours: language mode 6, warnings are errors.
let swiftSettings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

func nio(_ product: String) -> Target.Dependency { .product(name: product, package: "swift-nio") }
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")

/// The tests of one room, named after it.
func test(_ room: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .testTarget(
        name: "\(room.prefix(1).uppercased())\(room.dropFirst())Tests",
        dependencies: [.byName(name: room)] + dependencies,
        swiftSettings: swiftSettings
    )
}

let package = Package(
    name: "headway",
    products: [.executable(name: "headway", targets: ["headway"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        // C boundary
        .systemLibrary(name: "CHiredis", providers: [.apt(["libhiredis-dev"])]),
        .systemLibrary(name: "CCrypto", providers: [.apt(["libssl-dev"])]),
        .target(name: "CWebFiles"),
        .target(name: "CProcess"),

        // Rooms, from the pure core outwards
        // Square roots and rounding of the standard library are libm's; without Glibc nothing else would link it.
        .target(name: "ProgressCore", swiftSettings: swiftSettings, linkerSettings: [.linkedLibrary("m")]),
        .target(name: "Telemetry", dependencies: [logging], swiftSettings: swiftSettings),
        .target(name: "WebSocketWire", dependencies: [nio("NIOCore")], swiftSettings: swiftSettings),
        .target(
            name: "RedisLink",
            dependencies: ["CHiredis", nio("NIOCore"), nio("NIOPosix"), logging],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "JobStore",
            dependencies: ["ProgressCore", "RedisLink", "CCrypto", nio("NIOCore")],
            resources: [.embedInCode("Scripts")],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "WorkerRuntime",
            dependencies: [
                "ProgressCore", "RedisLink", "JobStore", "Telemetry", "CProcess", nio("NIOCore"), nio("NIOHTTP1"), logging, lifecycle,
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
            ],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "Gateway",
            dependencies: [
                "ProgressCore", "RedisLink", "JobStore", "Telemetry", "WebSocketWire", "CWebFiles",
                nio("NIOCore"), nio("NIOPosix"), nio("NIOHTTP1"), logging, lifecycle,
                .product(name: "DequeModule", package: "swift-collections"),
            ],
            swiftSettings: swiftSettings
        ),
        .executableTarget(
            name: "headway",
            dependencies: [
                "ProgressCore", "RedisLink", "JobStore", "Telemetry", "WebSocketWire", "WorkerRuntime", "Gateway", "CHiredis",
                nio("NIOCore"), nio("NIOPosix"), nio("NIOHTTP1"), logging, lifecycle, "Yams",
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
            ],
            resources: [.embedInCode("Pipelines/builtin_pipelines.yaml")],
            swiftSettings: swiftSettings
        ),

        // Tests
        .target(
            name: "TestSupport",
            dependencies: ["RedisLink", "WebSocketWire", nio("NIOCore"), nio("NIOPosix")],
            swiftSettings: swiftSettings
        ),
        test("ProgressCore", ["TestSupport"]),
        test("Telemetry", [logging]),
        test("WebSocketWire", ["TestSupport", nio("NIOCore")]),
        test("RedisLink", ["TestSupport", nio("NIOCore"), nio("NIOEmbedded"), nio("NIOPosix"), logging]),
        test("JobStore", ["ProgressCore", "RedisLink", "TestSupport", nio("NIOCore"), nio("NIOPosix"), logging]),
        test(
            "WorkerRuntime",
            ["ProgressCore", "RedisLink", "JobStore", "Telemetry", "TestSupport", nio("NIOCore"), nio("NIOPosix"), logging]
        ),
        test(
            "Gateway",
            [
                "ProgressCore", "RedisLink", "JobStore", "Telemetry", "WebSocketWire", "TestSupport", nio("NIOCore"),
                nio("NIOEmbedded"), nio("NIOPosix"), nio("NIOHTTP1"), logging, lifecycle,
            ]
        ),
        test(
            "headway",
            [
                "ProgressCore", "JobStore", nio("NIOCore"), nio("NIOPosix"), nio("NIOHTTP1"), logging, "TestSupport",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]
        ),
        .testTarget(
            name: "IntegrationTests",
            dependencies: [
                "ProgressCore", "RedisLink", "JobStore", "TestSupport", "headway", nio("NIOCore"), nio("NIOPosix"), logging,
            ],
            swiftSettings: swiftSettings
        ),
    ]
)
