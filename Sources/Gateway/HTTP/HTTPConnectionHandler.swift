import NIOCore
import NIOHTTP1
import Telemetry

/// One client's HTTP/1.1 connection: requests in order, one at a time.
///
/// Owned by its event loop. The next request is looked at when the answer before it is in the kernel's hands, so a client that
/// sends without reading holds one answer and one read's worth of bytes, whatever it does. A single timer watches over whatever
/// the connection waits for.
final class HTTPConnectionHandler: ChannelInboundHandler, ChannelOutboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = Never
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    let service: HTTPService
    let decoder: RequestDecoder
    var limits: GatewayLimits { service.limits }
    var context: ChannelHandlerContext?
    var phase = Phase.idle
    var exchange: Exchange?

    /// Parts of requests that were sent ahead of their turn.
    private var queue = CircularBuffer<HTTPServerRequestPart>(initialCapacity: 2)
    private var queuedHeads = 0
    /// Nothing more is taken in: too many requests ahead, bytes that are not HTTP, or shutting down.
    var isLastExchange = false
    private var isPumping = false
    private var exchanges = 0
    private var isReadPending = false
    /// The route has as much of the body as it wants for now.
    var isSaturated = false
    private var lingered = 0
    private var windowBytes = 0
    private var hasHeadBegun = false
    private var sawPart = false

    private var deadline = NIODeadline.distantFuture
    private var timer: Scheduled<Void>?
    private var timerAt = NIODeadline.distantFuture

    init(service: HTTPService, decoder: RequestDecoder) {
        self.service = service
        self.decoder = decoder
    }

    // MARK: Events of the channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        arm(limits.idleTimeout)
    }

    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelInactive(context: ChannelHandlerContext) {
        leave(error: GatewayError(.requestTimeout, "the client went away"))
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        // After a hand-over the decoder is silent, so this is always a part.
        sawPart = true
        let part = unwrapInboundIn(data)
        switch phase {
        case .gone: return
        case .lingering:
            if case .body(let bytes) = part { lingered += bytes.readableBytes }
            if lingered > limits.lingerBytes { close() }
        case .idle, .receiving, .answering, .sending:
            if let exchange, !exchange.isComplete {
                take(part)
            } else if !isLastExchange {
                enqueue(part)
            }
            pump()
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        // Bytes came but no part of a request: the beginning of a head, which has only so long to become whole.
        if phase == .idle, !sawPart, !hasHeadBegun {
            hasHeadBegun = true
            arm(limits.headTimeout)
        }
        sawPart = false
        context.fireChannelReadComplete()
    }

    /// With `autoRead` the channel asks for bytes by itself; what we could not bound is not asked for.
    func read(context: ChannelHandlerContext) {
        if wantsBytes { context.read() } else { isReadPending = true }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard event is ChannelShouldQuiesceEvent else { return context.fireUserInboundEventTriggered(event) }
        isLastExchange = true
        if phase == .idle { close() }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? HTTPParserError else { return close() }
        guard phase != .gone, phase != .lingering else { return }
        if case .invalidEOFState = error { return close() }
        service.metrics.malformed.increment()
        isLastExchange = true
        guard let exchange else { return refuseUnreadable(error) }
        // The answer to what came whole is still given; the rest is not readable.
        guard !exchange.isComplete else { return }
        if case .streaming(let source) = exchange.body { source.finish(error) }
        self.exchange?.body = .ignored
        exchange.task?.cancel()
        respond(.error(Self.refusal(for: error), requestID: exchange.requestID))
    }

    // MARK: Requests in order

    private func enqueue(_ part: HTTPServerRequestPart) {
        if case .head = part {
            queuedHeads += 1
            // Everything from here on is dropped; the connection ends behind the current answer.
            if queuedHeads > limits.pipelinedRequests {
                isLastExchange = true
                return
            }
        }
        queue.append(part)
    }

    /// Feeds queued parts to the state until it has to wait. Called after every change that may let it go on.
    func pump() {
        guard !isPumping else { return }
        isPumping = true
        defer { isPumping = false }
        while let part = queue.first {
            guard phase == .idle || (phase == .receiving && exchange?.isComplete == false) else { break }
            queue.removeFirst()
            take(part)
        }
        if phase == .idle, queue.isEmpty, isLastExchange { return close() }
        if isReadPending, wantsBytes {
            isReadPending = false
            context?.read()
        }
    }

    private var wantsBytes: Bool {
        switch phase {
        case .idle, .answering, .sending: queue.isEmpty && !isLastExchange
        case .receiving: queue.isEmpty && !isSaturated
        case .lingering: true
        case .gone: false
        }
    }

    private func take(_ part: HTTPServerRequestPart) {
        switch part {
        case .head(let head):
            queuedHeads = max(0, queuedHeads - 1)
            begin(head)
        case .body(let bytes): receive(bytes)
        case .end: finishBody()
        }
    }

    private func begin(_ head: HTTPRequestHead) {
        exchanges += 1
        hasHeadBegun = false
        phase = .receiving
        isSaturated = false
        windowBytes = 0
        // llhttp parses nothing behind a request that asks for another protocol, granted or not.
        let stopsDecoder = head.method == .CONNECT || head.headers.contains(name: "upgrade")
        exchange = Exchange(
            number: exchanges,
            requestID: service.ids.id(for: head),
            head: head,
            startedAt: .now(),
            keepsAlive: head.isKeepAlive && !stopsDecoder
        )
        arm(limits.bodyTimeout)
        do {
            try route(head)
        } catch {
            refuseEarly(.error(service.refusal(for: error, requestID: exchange?.requestID ?? ""), requestID: exchange?.requestID ?? ""))
        }
    }

    /// Finds what to do with the request and says where its body goes.
    private func route(_ head: HTTPRequestHead) throws(GatewayError) {
        guard let current = exchange else { return }
        let target = try RequestTarget(head.uri, limits: limits)
        // Probes of a platform name the gateway by whatever address they know.
        let isProbe = target.segments == ["livez"] || target.segments == ["readyz"]
        if !isProbe { exchange?.foreignOrigin = try service.hostPolicy.check(head, authority: target.authority) }
        switch service.router.match(head.method, target.segments) {
        case .notFound: throw GatewayError(.notFound, "there is nothing at this path")
        case .methodNotAllowed(let allow):
            if head.method == .OPTIONS { return refuseEarly(preflight(allow: allow)) }
            var response = HTTPResponse.error(
                GatewayError(.methodNotAllowed, "this path takes \(allow)"),
                requestID: current.requestID
            )
            response.add("allow", allow)
            refuseEarly(response)
        case .route(let route, let parameters):
            exchange?.route = route
            let request = HTTPRequest(
                id: current.requestID,
                head: head,
                target: target,
                principal: service.principal(of: head),
                foreignOrigin: exchange?.foreignOrigin,
                parameters: parameters
            )
            if case .streamed(let action) = route.action { return stream(request, action) }
            let limit = route.action.bodyLimit
            if let length = Self.contentLength(head), length > limit { throw Self.tooLarge(limit) }
            exchange?.request = request
            exchange?.body = .collecting(ByteBuffer(), limit: limit)
            continueIfExpected(head)
        }
    }

    /// Answers at once when a body is on its way, else at the request's end.
    private func refuseEarly(_ response: HTTPResponse) {
        guard let head = exchange?.head else { return }
        if Self.hasBody(head) {
            exchange?.body = .ignored
            respond(response)
        } else {
            exchange?.body = .refused(response)
        }
    }

    private func stream(_ request: HTTPRequest, _ action: @escaping @Sendable (HTTPRequest, RequestBody) async throws -> HTTPResponse) {
        guard let context else { return }
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        let number = exchanges
        let delegate = RequestBodyDelegate(eventLoop: context.eventLoop) { bound.value.routeWantsMore(number) }
        let (body, source) = RequestBody.make(delegate: delegate)
        exchange?.body = .streaming(source)
        arm(limits.uploadWindow)
        continueIfExpected(request.head)
        run { .answer(try await action(request, body)) }
    }

    private func receive(_ bytes: ByteBuffer) {
        windowBytes += bytes.readableBytes
        switch exchange?.body {
        case .collecting(var collected, let limit):
            guard collected.readableBytes + bytes.readableBytes <= limit else {
                exchange?.body = .ignored
                return respond(.error(Self.tooLarge(limit), requestID: exchange?.requestID ?? ""))
            }
            // The exchange lets go of the buffer first, or appending would copy all of it each time.
            exchange?.body = .ignored
            collected.writeImmutableBuffer(bytes)
            exchange?.body = .collecting(collected, limit: limit)
        case .streaming(let source):
            if case .stopProducing = source.yield(bytes) { isSaturated = true }
        case .ignored, .refused, .complete, nil: break
        }
    }

    private func finishBody() {
        let body = exchange?.body
        exchange?.body = .complete
        switch body {
        case .collecting(let collected, _):
            exchange?.request?.body = collected
            dispatch()
        case .streaming(let source):
            source.finish()
            if phase == .receiving {
                phase = .answering
                arm(limits.answerTimeout)
            }
        case .refused(let response): respond(response)
        case .ignored, .complete, nil: break
        }
    }

    private func routeWantsMore(_ number: Int) {
        guard exchange?.number == number, isSaturated else { return }
        isSaturated = false
        if phase == .receiving { arm(limits.uploadWindow) }
        windowBytes = 0
        pump()
    }

    // MARK: Time

    func arm(_ after: Duration) {
        deadline = .now() + TimeAmount(after)
        if timer == nil || deadline < timerAt { schedule() }
    }

    private func schedule() {
        guard let context else { return }
        timer?.cancel()
        timerAt = deadline
        timer = context.eventLoop.assumeIsolated().scheduleTask(deadline: deadline) { [weak self] in self?.timerFired() }
    }

    private func timerFired() {
        timer = nil
        guard phase != .gone else { return }
        // Deadlines move ahead all the time; the timer follows when it has run out.
        guard deadline <= .now() else { return schedule() }
        switch phase {
        case .idle where !hasHeadBegun, .lingering, .gone: return close()
        case .idle:
            service.metrics.timeouts.increment()
            refuseUnreadable(nil)
        case .receiving where isSaturated: arm(limits.uploadWindow)  // the disk is slow, not the client
        case .receiving:
            if case .streaming = exchange?.body, windowBytes >= limits.uploadWindowBytes {
                windowBytes = 0
                return arm(limits.uploadWindow)
            }
            service.metrics.timeouts.increment()
            abort(GatewayError(.requestTimeout, "the body came too slowly"))
        case .answering:
            service.metrics.timeouts.increment()
            abort(GatewayError(.timeout, "the answer took longer than \(limits.answerTimeout)", retryAfterSeconds: 5))
        case .sending:
            service.metrics.timeouts.increment()
            close()
        }
    }

    /// Ends the current exchange with an error and the connection with it.
    private func abort(_ error: GatewayError) {
        guard let exchange else { return close() }
        if case .streaming(let source) = exchange.body { source.finish(error) }
        exchange.task?.cancel()
        self.exchange?.keepsAlive = false
        respond(.error(error, requestID: exchange.requestID))
    }

    // MARK: The end

    func close() {
        guard phase != .gone else { return }
        let context = context
        leave(error: GatewayError(.requestTimeout, "the connection was closed"))
        context?.close(promise: nil)
    }

    /// Lets go of everything; nothing is answered any more.
    func leave(error: GatewayError) {
        phase = .gone
        if case .streaming(let source) = exchange?.body { source.finish(error) }
        exchange?.task?.cancel()
        exchange = nil
        queue.removeAll()
        timer?.cancel()
        timer = nil
    }

    /// For the hand-over: whether the channel waits for a `read`.
    var isOwedRead: Bool { isReadPending }
}
