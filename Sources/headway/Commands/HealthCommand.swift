import ArgumentParser
import NIOHTTP1

/// `headway health`: for health checks of containers, which have no other HTTP client.
struct HealthCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "health",
        abstract: "Ask a gateway whether it can serve; ends with 0 if so, 5 if not."
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var gateway: GatewayOptions

    func run() async throws {
        let url = try common.reader([gateway.flag]).value(Settings.gatewayURL)
        let answer = try await GatewayClient.with(baseURL: url) { try await $0.request(.GET, "/readyz", timeout: .seconds(5)) }
        guard answer.status == 200 else { throw CommandError(.linkLost, "\(url)/readyz: HTTP \(answer.status)") }
        Output.standard.line("ready")
    }
}
