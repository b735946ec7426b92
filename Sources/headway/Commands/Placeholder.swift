import ArgumentParser
struct DevCommand: AsyncParsableCommand { static let configuration = CommandConfiguration(commandName: "dev") }
struct GatewayCommand: AsyncParsableCommand { static let configuration = CommandConfiguration(commandName: "gateway") }
struct WorkerCommand: AsyncParsableCommand { static let configuration = CommandConfiguration(commandName: "worker") }
