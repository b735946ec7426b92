import NIOCore
import NIOHTTP1

/// Where a connection stands, and what it knows of the request in progress.
extension HTTPConnectionHandler {
    enum Phase {
        /// Between requests.
        case idle
        /// The current request's body is coming.
        case receiving
        /// The whole request is here, its route works on it.
        case answering
        /// The answer is on its way.
        case sending
        /// Refused before its end: we wait for the client to read why.
        case lingering
        /// Closed, or somebody else's.
        case gone
    }

    /// One request and its answer.
    struct Exchange {
        enum Body {
            /// Gathered until its end.
            case collecting(ByteBuffer, limit: Int)
            /// Handed to the route as it comes.
            case streaming(RequestBody.Producer.Source)
            /// Nobody wants it.
            case ignored
            /// The request is a short one and will be refused at its end, so that the connection can be kept.
            case refused(HTTPResponse)
            case complete
        }

        let number: Int
        let requestID: String
        let head: HTTPRequestHead
        let startedAt: NIODeadline
        var keepsAlive: Bool
        var body = Body.ignored
        /// Nil while no route is known for it.
        var route: Route?
        var request: HTTPRequest?
        /// The foreign origin that may read the answer.
        var foreignOrigin: String?
        var task: Task<Void, Never>?

        var isComplete: Bool {
            if case .complete = body { true } else { false }
        }
    }
}
