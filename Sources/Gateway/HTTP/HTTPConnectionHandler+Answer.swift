import Logging
import NIOCore
import NIOHTTP1
import Telemetry

/// Running routes and sending what they answer.
extension HTTPConnectionHandler {
    /// The whole request is here.
    func dispatch() {
        guard let exchange, let route = exchange.route, let request = exchange.request else { return }
        phase = .answering
        arm(limits.answerTimeout)
        switch route.action {
        case .immediate(let action):
            do {
                respond(try action(request))
            } catch {
                respond(.error(service.refusal(for: error, requestID: request.id), requestID: request.id))
            }
        case .task(_, let action): run { .answer(try await action(request)) }
        case .session(let action): run { try await action(request) }
        case .streamed: preconditionFailure("a streamed route is started by its head")
        }
    }

    func run(_ work: @escaping @Sendable () async throws -> SessionOutcome) {
        guard let context, let exchange else { return }
        let loop = context.eventLoop
        let bound = NIOLoopBound(self, eventLoop: loop)
        let service = service
        let (number, requestID) = (exchange.number, exchange.requestID)
        // One task per request: routes wait for Redis and the disk, the event loop must not. It ends with its answer and is
        // cancelled with its connection.
        self.exchange?.task = Task {
            let outcome: Result<SessionOutcome, GatewayError>
            do {
                outcome = .success(try await work())
            } catch {
                outcome = .failure(service.refusal(for: error, requestID: requestID))
            }
            loop.execute { bound.value.complete(number, outcome) }
        }
    }

    private func complete(_ number: Int, _ outcome: Result<SessionOutcome, GatewayError>) {
        // Another exchange, or an answer that has begun: a time-out was faster.
        guard let exchange, exchange.number == number, phase == .answering || phase == .receiving else { return }
        self.exchange?.task = nil
        switch outcome {
        case .success(.answer(let response)): respond(response)
        case .success(.takeOver(let make)): takeOver(make)
        case .failure(let error): respond(.error(error, requestID: exchange.requestID))
        }
    }

    /// Sends an answer to the current request, whether all of the request has come or not.
    func respond(_ answer: HTTPResponse) {
        guard let context, let exchange, phase == .answering || phase == .receiving else { return }
        var response = answer
        if let origin = exchange.foreignOrigin {
            response.add("access-control-allow-origin", origin)
            response.add("access-control-expose-headers", "etag, location, retry-after, x-request-id")
            response.add("vary", "origin")
        }
        let keeps = exchange.keepsAlive && exchange.isComplete && !response.closes && !isLastExchange && !service.isDraining
        if !keeps { isLastExchange = true }
        phase = .sending
        arm(limits.sendTimeout)
        account(exchange, status: response.status, isLongPoll: response.isLongPoll)
        let isHead = exchange.head.method == .HEAD
        let bytes = service.writer.write(
            response,
            requestID: exchange.requestID,
            isHead: isHead,
            keepsAlive: keeps,
            allocator: context.channel.allocator
        )
        let number = exchange.number
        if case .file(let file, let range) = response.body, !isHead, !range.isEmpty {
            context.write(wrapOutboundOut(bytes), promise: nil)
            send(file, range, number)
        } else {
            let sent = context.eventLoop.makePromise(of: Void.self)
            sent.futureResult.assumeIsolated().whenComplete { result in self.sent(number, result) }
            context.writeAndFlush(wrapOutboundOut(bytes), promise: sent)
        }
    }

    /// Sends a file piece by piece; the next piece is read when the one before is in the kernel's hands.
    private func send(_ file: BlobFile, _ range: Range<Int>, _ number: Int) {
        guard let context, phase == .sending, exchange?.number == number else { return }
        let count = min(range.count, limits.fileChunkBytes)
        file.read(at: range.lowerBound, count: count, on: context.eventLoop).assumeIsolated().whenComplete { result in
            guard let context = self.context, self.phase == .sending, self.exchange?.number == number else { return }
            // A file that got shorter or unreadable cannot be answered any more: the client sees the missing bytes.
            guard case .success(let bytes) = result, bytes.readableBytes == count else { return self.close() }
            self.service.metrics.served.increment(by: count)
            let sent = context.eventLoop.makePromise(of: Void.self)
            let rest = (range.lowerBound + count)..<range.upperBound
            sent.futureResult.assumeIsolated().whenComplete { result in
                guard case .success = result, !rest.isEmpty else { return self.sent(number, result) }
                self.arm(self.limits.sendTimeout)
                self.send(file, rest, number)
            }
            context.writeAndFlush(self.wrapOutboundOut(bytes), promise: sent)
        }
    }

    private func sent(_ number: Int, _ result: Result<Void, any Error>) {
        guard phase == .sending, let exchange, exchange.number == number else { return }
        guard case .success = result else { return close() }
        guard exchange.isComplete else { return linger() }
        self.exchange = nil
        phase = .idle
        arm(limits.idleTimeout)
        // The client's side is read on for a moment: closing with unread bytes would make its kernel throw our answer away.
        if isLastExchange { return linger() }
        pump()
    }

    /// The last answer has left: nothing more is written, what still comes is thrown away.
    private func linger() {
        phase = .lingering
        if case .streaming(let source) = exchange?.body { source.finish() }
        exchange?.task?.cancel()
        exchange = nil
        arm(limits.lingerTimeout)
        context?.close(mode: .output, promise: nil)
        pump()
    }

    func account(_ exchange: Exchange, status: Int, isLongPoll: Bool = false) {
        let duration = NIODeadline.now() - exchange.startedAt
        let microseconds = Int(duration.nanoseconds / 1000)
        (exchange.route?.metrics ?? service.metrics.unknownRoute)
            .answered(status: status, microseconds: isLongPoll ? nil : microseconds)
        service.logger.debug(
            "request answered",
            metadata: [
                LogKey.requestID: "\(exchange.requestID)", LogKey.method: "\(exchange.head.method.rawValue)",
                LogKey.route: "\(exchange.route?.pattern ?? "none")", LogKey.status: "\(status)",
                LogKey.durationMs: "\(microseconds / 1000)",
            ]
        )
    }

    // MARK: Answers that belong to no route

    /// What cannot be read, or did not become a whole head in time, gets an answer without request.
    func refuseUnreadable(_ error: HTTPParserError?) {
        guard let context else { return }
        let requestID = service.ids.next()
        let refusal = error.map(Self.refusal(for:)) ?? GatewayError(.requestTimeout, "the request's head did not come in time")
        isLastExchange = true
        phase = .lingering
        arm(limits.lingerTimeout)
        service.metrics.unknownRoute.answered(status: refusal.status, microseconds: nil)
        let bytes = service.writer.write(
            .error(refusal, requestID: requestID),
            requestID: requestID,
            isHead: false,
            keepsAlive: false,
            allocator: context.channel.allocator
        )
        context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
        context.close(mode: .output, promise: nil)
        pump()
    }

    func preflight(allow: String) -> HTTPResponse {
        var response = HTTPResponse(status: 204)
        response.add("allow", allow)
        if exchange?.foreignOrigin != nil {
            response.add("access-control-allow-methods", allow)
            response.add(
                "access-control-allow-headers",
                "content-type, if-none-match, last-event-id, range, headway-fence, headway-write-token, x-request-id, traceparent"
            )
            response.add("access-control-max-age", "600")
        }
        return response
    }

    /// A client that waits for permission to send its body gets it (RFC 9110 §10.1.1).
    func continueIfExpected(_ head: HTTPRequestHead) {
        guard head.version.minor >= 1, head.headers.first(name: "expect")?.lowercased() == "100-continue", Self.hasBody(head) else {
            return
        }
        context?.writeAndFlush(wrapOutboundOut(ByteBuffer(string: "HTTP/1.1 100 Continue\r\n\r\n")), promise: nil)
    }

    static func contentLength(_ head: HTTPRequestHead) -> Int? { head.headers.first(name: "content-length").flatMap { Int($0) } }

    static func hasBody(_ head: HTTPRequestHead) -> Bool {
        head.headers.contains(name: "transfer-encoding") || (contentLength(head) ?? 0) > 0
    }

    static func tooLarge(_ limit: Int) -> GatewayError {
        guard limit > 0 else { return GatewayError(.bodyTooLarge, "this route takes no body") }
        return GatewayError(.bodyTooLarge, "the body has more than \(limit) bytes")
    }

    static func refusal(for error: HTTPParserError) -> GatewayError {
        switch error {
        case .headerOverflow: GatewayError(.headersTooLarge, "the request's head is too large or has too many fields")
        case .invalidVersion: GatewayError(.badRequest, "this server speaks HTTP/1.1")
        case .invalidMethod: GatewayError(.badRequest, "not an HTTP request: no such method")
        case .invalidContentLength, .unexpectedContentLength: GatewayError(.badRequest, "the Content-Length cannot be used")
        case .invalidChunkSize: GatewayError(.badRequest, "the chunked body is broken")
        default: GatewayError(.badRequest, "not an HTTP request: \(error)")
        }
    }
}
