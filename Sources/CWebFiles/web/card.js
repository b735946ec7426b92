// One job as a card: pure presentation of the events it is given.

import * as say from './format.js';
import { showModel } from './viewer.js';

const LOG_LINES_MAX = 400;
const EASE_MS = 120;
const STATUS = {
  QUEUED: 'Waiting', ANALYZING: 'Looking at it', GENERATING: 'Making it', POST_PROCESSING: 'Finishing',
  COMPLETE: 'Done', FAILED: 'Failed', CANCELLED: 'Cancelled',
};
const STATES = { QUEUED: 'waiting', COMPLETE: 'done', FAILED: 'failed', CANCELLED: 'cancelled' };
const isCalm = matchMedia('(prefers-reduced-motion: reduce)');

export class Card {
  /** @param {{name: string, picture?: Blob, actions: {cancel, dismiss, again}, announce: (text: string) => void}} options */
  constructor({ name, picture, actions, announce }) {
    this.root = document.getElementById('card').content.firstElementChild.cloneNode(true);
    this.part = (selector) => this.root.querySelector(selector);
    this.announce = announce;
    this.actions = actions;
    this.stages = [];
    this.event = null; // the newest ordered event, and when it came
    this.place = null; // where it waits, while it does, and when that was said
    this.receivedAt = 0;
    this.drawn = 0; // what the figure and screen readers say, and the bar goes to
    this.shown = 0; // where the bar's end is
    this.glidAt = 0;
    this.attempt = 1;
    this.isLive = true;
    this.isOver = false;
    this.logLines = [];
    this.rename(name);
    if (picture) this.show(URL.createObjectURL(picture));
    this.part('.cancel').onclick = () => actions.cancel(this);
    this.part('.dismiss').onclick = () => actions.dismiss(this);
    this.part('.again').onclick = () => actions.again(this);
    this.part('.log-toggle').onclick = () => this.toggleLog();
    this.setState('waiting', 'Waiting');
  }

  rename(name) {
    this.name = name;
    this.part('.name').textContent = name;
    this.part('.name').title = name;
    this.part('.track').setAttribute('aria-label', `Progress of ${name}`);
  }

  identify(job) {
    this.job = job;
    this.part('.id').textContent = job;
    this.root.dataset.job = job;
  }

  show(url, isWhole = false) {
    const picture = this.part('.picture');
    picture.src = url;
    picture.alt = isWhole ? `Preview of the relief of ${this.name}` : this.name;
    picture.classList.toggle('contain', isWhole);
  }

  setState(state, status) {
    this.root.dataset.state = state;
    this.part('.status').textContent = status;
  }

  uploading(share) {
    this.setState('waiting', share < 1 ? `Uploading ${Math.floor(share * 100)} %` : 'Submitting');
  }

  setStages(stages) {
    this.stages = stages;
    this.part('.stages').replaceChildren(...stages.map(({ name }) => {
      const item = document.createElement('li');
      item.dataset.stage = name;
      item.append(say.title(name));
      return item;
    }));
    if (this.event) this.markStages(this.event);
  }

  /** Whatever the live link has to say about this job. */
  take(event) {
    switch (event.type) {
      case 'log': return this.addLog(event.lines ?? [], event.dropped);
      case 'preview': return this.show(event.url, true);
      case 'queue': return this.waitInLine(event);
      case 'reset': this.drawn = 0; return undefined;
      case 'gone': return this.end('failed', 'Expired', { code: 'gone', message: 'This job has expired; its results are no longer kept.' });
      case 'error': return this.end('failed', 'Not found', event.error);
      default: return typeof event.phase === 'string' ? this.advance(event) : undefined;
    }
  }

  advance(event) {
    const before = this.event;
    if ((event.attempt ?? 1) !== this.attempt) {
      this.attempt = event.attempt ?? 1;
      this.drawn = 0;
      this.announce(`${this.name}: attempt ${this.attempt}`);
    }
    this.part('.attempt').hidden = this.attempt < 2;
    this.part('.attempt').textContent = `attempt ${this.attempt}`;
    this.event = event;
    if (event.phase !== 'QUEUED') this.place = null;
    this.receivedAt = performance.now();
    this.isLive = true;
    this.etaDue = 0;
    this.setState(STATES[event.phase] ?? 'running', this.statusOf(event));
    this.part('.detail').textContent = this.place ? say.place(this.place) : this.detailOf(event);
    if (event.children) this.part('.stages').hidden = true; // a group has none: its children do
    this.markStages(event);
    this.draw(performance.now());
    if (event.phase === 'COMPLETE') this.complete(event);
    else if (event.phase === 'FAILED') this.end('failed', 'Failed', event.error);
    else if (event.phase === 'CANCELLED') this.end('cancelled', 'Cancelled', null, event.cancel);
    else {
      this.part('.cancel').disabled = Boolean(event.cancel);
      if (before?.phase !== event.phase) this.announce(`${this.name}: ${STATUS[event.phase] ?? event.phase}`);
    }
  }

  statusOf(event) {
    if (event.cancel && !(event.phase in STATES)) return 'Cancelling';
    if (event.children && event.phase === 'QUEUED') return 'Waiting for its parts';
    if (event.phase === 'QUEUED') return this.attempt > 1 ? 'Waiting for another worker' : 'Waiting in line';
    if (event.phase in STATES) return STATUS[event.phase];
    return event.stage ? say.title(event.stage) : STATUS[event.phase] ?? say.title(event.phase);
  }

  detailOf(event) {
    if (event.children) return say.children(event.children);
    if (event.phase in STATES) return '';
    const parts = [];
    if (event.items > 1) parts.push(`item ${event.item} of ${event.items}`);
    if (event.steps > 0) parts.push(`step ${event.step} of ${event.steps}`);
    if (event.message) parts.push(event.message);
    return parts.join(' · ');
  }

  markStages(event) {
    const items = [...this.part('.stages').children];
    const isDone = event.phase === 'COMPLETE';
    const current = isDone ? items.length : items.findIndex((item) => item.dataset.stage === event.stage);
    items.forEach((item, index) => {
      const isBad = index === current && event.phase === 'FAILED';
      item.dataset.state = index < current ? 'done' : isBad ? 'bad' : index === current ? 'now' : '';
      if (index === current) item.setAttribute('aria-current', 'step');
      else item.removeAttribute('aria-current');
      const took = event.stages?.[item.dataset.stage];
      if (Number.isFinite(took) && !item.querySelector('small')) {
        const small = document.createElement('small');
        small.textContent = say.exactly(took);
        item.append(small);
      }
    });
  }

  waitInLine(event) {
    if (this.event && this.event.phase !== 'QUEUED') return;
    this.place = event;
    this.placedAt = performance.now();
    this.etaDue = 0;
    this.part('.detail').textContent = say.place(event);
  }

  /** min(p + v·Δt, p + 0.9·(100 − p)), never backwards within an attempt; as reported when motion is not wanted. */
  draw(now) {
    if (!this.event) return;
    const p = this.event.percent ?? 0;
    const isMoving = this.isLive && !this.isOver && !isCalm.matches && !(this.event.phase in STATES);
    const v = isMoving ? this.event.percent_per_s ?? 0 : 0;
    const elapsed = (now - this.receivedAt) / 1000;
    this.drawn = Math.max(this.drawn, Math.min(p + v * elapsed, p + 0.9 * (100 - p)));
    this.glide(now);
    const whole = String(Math.floor(this.drawn + 1e-6));
    const figure = this.part('.percent');
    if (figure.firstChild.data !== whole) {
      figure.firstChild.data = whole;
      this.part('.track').setAttribute('aria-valuenow', whole);
    }
    if (this.isOver || now < (this.etaDue ?? 0)) return;
    this.etaDue = now + 1000;
    if (this.event.phase === 'QUEUED') this.tell(this.place ? say.start(this.place, now - this.placedAt) : '');
    else this.tell(this.event.phase in STATES ? '' : say.remaining(this.event, elapsed * 1000));
  }

  /** The bar's end follows what is drawn within a fraction of a second, so that four updates a second do not look like four jumps. */
  glide(now) {
    const share = isCalm.matches || this.isOver || this.shown > this.drawn ? 1 : 1 - Math.exp(-(now - this.glidAt) / EASE_MS);
    this.shown += (this.drawn - this.shown) * share;
    this.glidAt = now;
    this.part('.fill').style.transform = `translateX(${(this.shown - 100).toFixed(2)}%)`;
  }

  tell(eta) {
    this.part('.eta').textContent = eta;
    const text = [`${this.part('.percent').firstChild.data} %`, this.part('.status').textContent, eta].filter(Boolean).join(', ');
    this.part('.track').setAttribute('aria-valuetext', text);
  }

  complete(event) {
    const files = event.result?.files ?? [];
    const model = files.find((file) => file.name.endsWith('.glb')) ?? files[0];
    const preview = files.find((file) => file.name === 'preview.png');
    if (preview?.url) this.show(preview.url, true);
    this.end('done', Number.isFinite(event.duration_ms) ? `Done in ${say.exactly(event.duration_ms)}` : 'Done');
    this.announce(`${this.name}: done`);
    const facts = event.result ?? {};
    const details = [];
    if (Number.isFinite(facts.triangles)) details.push(`${facts.triangles.toLocaleString('en')} triangles`);
    if (Array.isArray(facts.size_mm)) details.push(`${facts.size_mm.map((side) => Math.round(side)).join(' × ')} mm`);
    if (details.length > 0) this.part('.detail').textContent = details.join(' · ');
    if (!model?.url) return;
    const link = this.part('.download');
    link.href = model.url;
    link.download = model.name.endsWith('.glb') ? `${this.name.replace(/\.[^.]*$/, '') || 'relief'}.glb` : model.name;
    link.textContent = `Download ${say.bytes(model.bytes)} .glb`;
    link.hidden = false;
    if (model.name.endsWith('.glb')) this.view(model.url);
  }

  async view(url) {
    const canvas = this.part('.model');
    try {
      canvas.hidden = false;
      await showModel(canvas, url, { isCalm: isCalm.matches });
      canvas.setAttribute('role', 'img');
      canvas.setAttribute('aria-label', `The relief of ${this.name} as a 3-D model. Arrow keys turn it.`);
      this.part('.picture').hidden = true;
      this.part('.turn').hidden = false;
    } catch {
      canvas.hidden = true; // without WebGL the preview stays
    }
  }

  end(state, status, error, cancel) {
    this.isOver = true;
    this.glide(performance.now());
    this.setState(state, status);
    this.part('.detail').textContent = this.event?.children ? say.children(this.event.children) : '';
    this.part('.cancel').hidden = true;
    this.tell('');
    if (cancel?.reason) this.part('.detail').textContent = cancel.reason;
    if (error) {
      this.complain(error);
      this.announce(`${this.name}: ${status}. ${error.message ?? ''}`);
    }
    this.part('.again').hidden = state === 'done' || Boolean(this.successor) || !this.actions.again.isPossible?.(this);
  }

  /** The job was tried again: where it goes on. */
  point(successor) {
    const link = document.createElement('a');
    link.href = `#jobs=${encodeURIComponent(successor)}`;
    link.textContent = successor;
    this.part('.successor').replaceChildren('Tried again as ', link);
    this.part('.successor').hidden = false;
    this.part('.again').hidden = true;
    this.successor = successor;
  }

  complain({ message, code, request_id: request }) {
    const code_ = document.createElement('code');
    code_.textContent = [code, request].filter(Boolean).join(' · ');
    const text = message || 'Something went wrong.';
    this.part('.problem').replaceChildren(`${text.charAt(0).toUpperCase()}${text.slice(1)} `, code_);
    this.part('.problem').hidden = false;
  }

  async toggleLog() {
    const button = this.part('.log-toggle');
    const isOpen = button.getAttribute('aria-expanded') !== 'true';
    button.setAttribute('aria-expanded', String(isOpen));
    this.part('.log').hidden = !isOpen;
    if (!isOpen) return;
    const earlier = this.job ? await this.actions.log(this) : [];
    if (earlier.length > 0) this.logLines = earlier;
    this.showLog();
  }

  addLog(lines, dropped) {
    this.logLines.push(...lines.map((line) => line.text));
    if (dropped > 0) this.dropped = dropped;
    this.logLines.splice(0, this.logLines.length - LOG_LINES_MAX);
    if (!this.part('.log').hidden) this.showLog();
  }

  showLog() {
    const log = this.part('.log');
    const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    const note = this.dropped > 0 ? `(${this.dropped} lines were not kept)\n` : '';
    log.textContent = note + (this.logLines.join('\n') || 'Nothing so far.');
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  }
}
