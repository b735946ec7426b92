// The live link: one object that watches jobs over WebSocket, falls back to Server-Sent Events and then to polling where a proxy is in the
// way, reconnects with full jitter (or when the server says), and keeps each job's cursor so that nothing is missed or shown twice.

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 15_000;
const OPEN_PATIENCE_MS = 6_000; // a link that has said nothing for so long does not work
const FAILURES_BEFORE_FALLBACK = 2;
const PING_EVERY_MS = 25_000;
const SILENCE_MAX_MS = 60_000;
const POLL_WAIT_MS = 20_000;
const POLLS_AT_ONCE = 4; // browsers give one host six connections over HTTP/1.1
const POLL_PAUSE_MS = 1_500;
const PROMOTE_AFTER_MS = 60_000; // how long a fallback is kept before the better transport is tried again
const WATCHES_PER_MESSAGE = 32; // a message has at most 8 KiB, an id at most 128 characters

const TERMINAL = new Set(['COMPLETE', 'FAILED', 'CANCELLED']);
const ORDER = ['ws', 'sse', 'poll'];

export class Live {
  /**
   * @param {object} options
   * @param {(job: string, event: object) => void} options.onEvent each event once, in order
   * @param {(status: {transport: string, isUp: boolean, isDegraded: boolean}) => void} options.onStatus
   * @param {?string} options.forced `ws`, `sse` or `poll`: only this one
   */
  constructor({ onEvent, onStatus, forced }) {
    this.onEvent = onEvent;
    this.onStatus = onStatus;
    this.forced = ORDER.includes(forced) ? forced : null;
    this.transport = this.forced ?? 'ws';
    this.jobs = new Map(); // job -> { seq, isFresh }
    this.failures = 0;
    this.isUp = false;
    this.isDegraded = false;
    this.link = null;
    this.timer = null;
    addEventListener('online', () => this.reconnectNow());
    addEventListener('pagehide', () => this.drop());
    addEventListener('pageshow', (event) => event.persisted && this.reconnectNow());
  }

  watch(job) {
    if (this.jobs.has(job)) return;
    this.jobs.set(job, { seq: 0 });
    if (this.link) this.link.added(job);
    else if (!this.timer) this.open();
  }

  unwatch(job) {
    if (!this.jobs.delete(job)) return;
    if (this.jobs.size === 0) this.drop();
    else this.link?.removed(job);
    this.say();
  }

  open() {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.jobs.size === 0 || this.link) return;
    const Link = { ws: SocketLink, sse: StreamLink, poll: PollLink }[this.transport];
    this.link = new Link(this);
    this.say();
  }

  drop() {
    clearTimeout(this.timer);
    this.timer = null;
    this.link?.close();
    this.link = null;
    this.isUp = false;
  }

  reconnectNow() {
    if (this.isUp) return;
    this.drop();
    this.open();
  }

  /** A link says that it works. */
  up() {
    this.failures = 0;
    if (this.isUp) return;
    this.isUp = true;
    this.isDegraded = false;
    if (this.transport !== 'ws' && !this.forced) {
      clearTimeout(this.promotion);
      this.promotion = setTimeout(() => this.promote(), PROMOTE_AFTER_MS);
    }
    this.say();
  }

  promote() {
    if (this.transport === 'ws' || this.jobs.size === 0) return;
    this.drop();
    this.transport = 'ws';
    this.open();
  }

  /** A link ended. `afterMs`: when the server wants to see us again. `isFinal`: this transport is refused here. */
  async down(link, { afterMs, isFinal = false } = {}) {
    if (link !== this.link) return;
    const worked = this.isUp;
    this.drop();
    this.say();
    if (!worked) this.failures += 1;
    const attempt = this.failures;
    const canFallBack = !this.forced && this.transport !== 'poll' && (isFinal || this.failures >= FAILURES_BEFORE_FALLBACK);
    // Only when the gateway itself answers is this transport what does not work; else it is simply away.
    if (canFallBack && (await isAlive())) {
      if (this.link || this.timer) return;
      this.transport = ORDER[ORDER.indexOf(this.transport) + 1];
      this.failures = 0;
      this.open();
      return;
    }
    if (this.link || this.timer) return;
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** attempt);
    this.timer = setTimeout(() => this.open(), afterMs ?? Math.random() * ceiling);
    this.say();
  }

  /** A link is gone for the moment and will come back by itself. */
  async away(link) {
    if (link !== this.link) return;
    this.failures = this.isUp ? 1 : this.failures + 1;
    this.isUp = false;
    this.say();
    if (this.failures > FAILURES_BEFORE_FALLBACK && (await isAlive())) this.down(link, { isFinal: true });
  }

  /** Every message of every transport comes through here: order, duplicates and the end are settled once. */
  take(event) {
    if (event.type === 'degraded') {
      this.isDegraded = event.active !== false;
      this.say();
      return;
    }
    const cursor = event.job === undefined ? undefined : this.jobs.get(event.job);
    if (!cursor) return;
    if (event.type === 'reset') cursor.seq = 0;
    if (typeof event.seq === 'number' && event.type !== 'reset') {
      const isEnd = TERMINAL.has(event.phase);
      if (event.seq <= cursor.seq && !isEnd) return;
      cursor.seq = Math.max(cursor.seq, event.seq);
    }
    this.onEvent(event.job, event);
    if (TERMINAL.has(event.phase) || event.type === 'gone' || event.error?.code === 'job_not_found') this.unwatch(event.job);
  }

  say() {
    this.onStatus({ transport: this.transport, isUp: this.isUp, isDegraded: this.isDegraded, isIdle: this.jobs.size === 0 });
  }
}

async function isAlive() {
  try {
    return (await fetch('/livez', { cache: 'no-store', signal: AbortSignal.timeout(4_000) })).ok;
  } catch {
    return false;
  }
}

function parse(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}

class SocketLink {
  constructor(live) {
    this.live = live;
    this.afterMs = undefined;
    this.lastHeard = performance.now();
    const address = new URL('/v1/ws', location.href);
    address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
    this.socket = new WebSocket(address, 'headway.v1.json');
    this.patience = setTimeout(() => this.end(), OPEN_PATIENCE_MS);
    this.socket.onopen = () => this.send([...live.jobs.keys()], 'watch');
    this.socket.onmessage = (message) => this.heard(parse(message.data));
    this.socket.onclose = (event) => this.end(event);
    this.pinger = setInterval(() => this.ping(), PING_EVERY_MS);
  }

  heard(event) {
    this.lastHeard = performance.now();
    clearTimeout(this.patience);
    this.live.up();
    if (event.type === 'notice' && Number.isFinite(event.reconnect_after_ms)) this.afterMs = event.reconnect_after_ms;
    if (event.type === 'ack') {
      for (const [job, answer] of Object.entries(event.jobs ?? {})) {
        if (answer?.error) this.live.take({ job, type: 'error', error: answer.error });
      }
      return;
    }
    this.live.take(event);
  }

  send(jobs, op) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    for (let start = 0; start < jobs.length; start += WATCHES_PER_MESSAGE) {
      const part = jobs.slice(start, start + WATCHES_PER_MESSAGE);
      const since = {};
      for (const job of part) if (this.live.jobs.get(job)?.seq) since[job] = this.live.jobs.get(job).seq;
      this.socket.send(JSON.stringify(op === 'watch' ? { op, jobs: part, since, id: start + 1 } : { op, jobs: part, id: start + 1 }));
    }
  }

  ping() {
    if (performance.now() - this.lastHeard > SILENCE_MAX_MS) this.end();
    else if (this.socket.readyState === WebSocket.OPEN) this.socket.send('{"op":"ping"}');
  }

  added(job) { this.send([job], 'watch'); }
  removed(job) { this.send([job], 'unwatch'); }

  end(event) {
    const said = /reconnect_after_ms\D+(\d+)/.exec(event?.reason ?? '');
    const afterMs = said ? Number(said[1]) : this.afterMs;
    this.live.down(this, { afterMs, isFinal: event?.code >= 4400 && event.code < 4500 });
    this.close();
  }

  close() {
    clearTimeout(this.patience);
    clearInterval(this.pinger);
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
  }
}

class StreamLink {
  constructor(live) {
    this.live = live;
    this.open();
  }

  open() {
    const jobs = [...this.live.jobs.keys()].slice(0, 32);
    const address = jobs.length === 1
      ? `/v1/jobs/${encodeURIComponent(jobs[0])}/events`
      : `/v1/events?${jobs.map((job) => `job=${encodeURIComponent(job)}`).join('&')}`;
    this.source = new EventSource(address);
    this.patience = setTimeout(() => this.live.down(this), OPEN_PATIENCE_MS);
    this.source.onmessage = (message) => {
      clearTimeout(this.patience);
      this.live.up();
      this.live.take(parse(message.data));
    };
    this.source.onerror = () => {
      clearTimeout(this.patience);
      // The browser comes back by itself after the server's `retry:`, with the cursor as Last-Event-ID; only what it gave up is ours.
      if (this.source.readyState === EventSource.CLOSED) this.live.down(this);
      else this.live.away(this);
    };
  }

  added() {
    this.close();
    this.open();
  }

  removed() {} // what still comes of it is dropped

  close() {
    clearTimeout(this.patience);
    this.source.close();
  }
}

class PollLink {
  constructor(live) {
    this.live = live;
    this.stop = new AbortController();
    for (const job of live.jobs.keys()) this.added(job);
  }

  removed() {}
  close() { this.stop.abort(); }

  async added(job) {
    const { live, stop } = this;
    while (!stop.signal.aborted && live.jobs.has(job)) {
      const isCrowded = live.jobs.size > POLLS_AT_ONCE;
      const { seq } = live.jobs.get(job);
      try {
        const query = `after=${seq}&wait_ms=${isCrowded || seq === 0 ? 0 : POLL_WAIT_MS}`;
        const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(POLL_WAIT_MS + 10_000)]);
        const response = await fetch(`/v1/jobs/${encodeURIComponent(job)}?${query}`, { cache: 'no-store', signal });
        if (response.status === 410) live.take({ job, type: 'gone' });
        else if (response.status === 404) live.take({ job, type: 'error', error: (await response.json()).error });
        else if (response.status === 304) live.up();
        else if (!response.ok) throw new Error(`status ${response.status}`);
        else {
          const answer = await response.json();
          live.up();
          const news = [...(answer.events ?? []), answer.state ?? answer];
          for (const event of news) live.take({ job, ...event });
        }
      } catch {
        if (!stop.signal.aborted) live.down(this);
        return;
      }
      if (isCrowded || seq === live.jobs.get(job)?.seq) await new Promise((resolve) => setTimeout(resolve, POLL_PAUSE_MS));
    }
  }
}
