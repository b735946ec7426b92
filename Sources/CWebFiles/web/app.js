// The page: photographs in, cards out. Job ids live in the URL's fragment, so a reload (or another gateway) goes on with the same jobs.

import { Card } from './card.js';
import { Live } from './live.js';

const QUEUE = 'relief';
const PIPELINE = 'relief';
const UPLOAD_BYTES_MAX = 64 * 1024 * 1024;
const FILES_AT_ONCE = 8;
const DETAIL = {
  quick: { size: 384, sweeps: 800, mesh: 192 },
  standard: {},
  fine: { size: 1152, sweeps: 5000, mesh: 512 },
};

const $ = (id) => document.getElementById(id);
const cards = new Map(); // job -> Card
const live = new Live({
  onEvent: (job, event) => cards.get(job)?.take(event),
  onStatus: showLink,
  forced: new URLSearchParams(location.search).get('transport'),
});
const stages = pipelineStages();

// What stands in the fragment: #jobs=A,B
function readFragment() {
  const text = new URLSearchParams(location.hash.slice(1)).get('jobs') ?? '';
  return text.split(',').filter((job) => /^[A-Za-z0-9_.:~-]{1,128}$/.test(job)).slice(0, 32);
}

function writeFragment() {
  const jobs = [...cards.keys()];
  history.replaceState(null, '', jobs.length ? `#jobs=${jobs.join(',')}` : location.pathname + location.search);
}

async function pipelineStages() {
  try {
    const { pipelines } = await request('/v1/pipelines');
    return pipelines.find((pipeline) => pipeline.name === PIPELINE)?.stages ?? [];
  } catch {
    return [];
  }
}

/** JSON of a route, or an Error that carries the server's code, message and request id. */
async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { signal: AbortSignal.timeout(30_000), ...options });
  } catch {
    throw Object.assign(new Error('The server cannot be reached.'), { code: 'unreachable' });
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw failure(response.status, body);
  return body;
}

function failure(status, body) {
  const { message, code, request_id } = body?.error ?? {};
  return Object.assign(new Error(message ?? `The server answered ${status}.`), { code: code ?? `http_${status}`, request_id });
}

/** Uploads by XMLHttpRequest, which knows how far it is. */
function upload(file, onShare) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open('POST', `/v1/uploads?name=${encodeURIComponent(file.name)}`);
    sending.responseType = 'json';
    sending.setRequestHeader('Content-Type', file.type || 'application/octet-stream');
    sending.upload.onprogress = (event) => event.lengthComputable && onShare(event.loaded / event.total);
    sending.onload = () => (sending.status < 300 && sending.response?.upload ? resolve(sending.response) : reject(failure(sending.status, sending.response)));
    sending.onerror = () => reject(Object.assign(new Error('The upload was interrupted.'), { code: 'unreachable' }));
    sending.send(file);
  });
}

async function submit(file) {
  const card = addCard({ name: file.name || 'pasted image', picture: file });
  card.file = file;
  card.params = { ...DETAIL[$('detail').value], depth: Number($('depth').value) };
  await run(card);
}

async function run(card) {
  try {
    card.uploading(0);
    const { upload: id, name } = await upload(card.file, (share) => card.uploading(share));
    card.uploading(1);
    const job = await request('/v1/jobs', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ queue: QUEUE, pipeline: PIPELINE, params: { ...card.params, inputs: [{ upload: id, name }] } }),
    });
    follow(card, job.job);
  } catch (error) {
    card.end('failed', 'Not submitted', error);
  }
}

function follow(card, job) {
  card.identify(job);
  cards.set(job, card);
  writeFragment();
  live.watch(job);
}

/** A job that only its id is known of: after a reload, or from a shared address. */
async function resume(job) {
  const card = addCard({ name: 'photograph' });
  follow(card, job);
  try {
    const whole = await request(`/v1/jobs/${encodeURIComponent(job)}?full=1`);
    const input = whole.params?.inputs?.[0]?.name;
    if (input) card.rename(input);
    else if (whole.children) card.rename('group of jobs');
    if (whole.retried_as) card.point(whole.retried_as);
    const preview = await fetch(`/v1/jobs/${encodeURIComponent(job)}/preview`);
    if (preview.ok && !card.isOver) card.show(URL.createObjectURL(await preview.blob()), true);
  } catch {
    // The live link tells what is wrong with the job; a name and a preview are not worth another message.
  }
}

function addCard({ name, picture }) {
  const card = new Card({ name, picture, announce, actions: { cancel, dismiss: forget, again, log: readLog } });
  $('jobs').prepend(card.root);
  stages.then((list) => card.setStages(list));
  return card;
}

/** The same job once more; from the photograph where the server cannot, or where there never was a job. */
async function again(card) {
  card.part('.again').disabled = true;
  try {
    if (!card.job) throw new Error('never submitted');
    const { job } = await request(`/v1/jobs/${encodeURIComponent(card.job)}/retry`, { method: 'POST' });
    const next = addCard({ name: card.name, picture: card.file });
    Object.assign(next, { file: card.file, params: card.params });
    forget(card);
    follow(next, job);
  } catch (error) {
    card.part('.again').disabled = false;
    if (!card.file) return card.complain(error);
    forget(card);
    submit(card.file);
  }
}

again.isPossible = (card) => Boolean(card.file) || (['FAILED', 'CANCELLED'].includes(card.event?.phase) && !card.event.children);

async function cancel(card) {
  if (!card.job) return;
  card.part('.cancel').disabled = true;
  try {
    await request(`/v1/jobs/${encodeURIComponent(card.job)}/cancel`, {
      method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ reason: 'cancelled on the page' }),
    });
  } catch (error) {
    card.complain(error);
    card.part('.cancel').disabled = false;
  }
}

function forget(card) {
  card.root.remove();
  if (card.job) {
    live.unwatch(card.job);
    cards.delete(card.job);
    writeFragment();
  }
}

async function readLog(card) {
  try {
    const { lines = [] } = await request(`/v1/jobs/${encodeURIComponent(card.job)}/logs`);
    return lines.map((line) => line.text ?? String(line));
  } catch {
    return [];
  }
}

function accept(files) {
  $('notice').hidden = true;
  const list = [...files];
  const good = list.filter((file) => file.type.startsWith('image/') && file.size > 0 && file.size <= UPLOAD_BYTES_MAX);
  const refused = list.filter((file) => !good.includes(file)).map((file) => file.name || 'that');
  if (refused.length > 0) complain(`${refused.join(', ')}: only images of at most ${UPLOAD_BYTES_MAX / 1024 / 1024} MiB can be taken.`);
  if (good.length > FILES_AT_ONCE) complain(`Only the first ${FILES_AT_ONCE} of ${good.length} images were taken.`);
  good.slice(0, FILES_AT_ONCE).forEach(submit);
}

function complain(text) {
  $('notice').textContent = text;
  $('notice').hidden = false;
}

function announce(text) {
  $('announce').textContent = text;
}

function showLink({ transport, isUp, isDegraded, isIdle }) {
  const badge = $('link');
  badge.hidden = isIdle;
  badge.dataset.state = !isUp ? 'away' : isDegraded ? 'degraded' : 'up';
  badge.dataset.transport = transport;
  const way = { ws: 'live', sse: 'live via SSE', poll: 'via polling' }[transport];
  $('link-text').textContent = isIdle ? '' : !isUp ? 'reconnecting' : isDegraded ? 'storage away, waiting' : way;
  // Set again by the next event, not by the link: what was missed in between is not to be drawn as if it had been seen.
  if (!isUp) for (const card of cards.values()) card.isLive = false;
}

function listen() {
  const drop = $('drop');
  $('file').addEventListener('change', (event) => {
    accept(event.target.files);
    event.target.value = '';
  });
  let depth = 0;
  addEventListener('dragenter', (event) => {
    if (event.dataTransfer?.types.includes('Files')) drop.classList.toggle('over', ++depth > 0);
  });
  addEventListener('dragleave', (event) => {
    if (event.dataTransfer?.types.includes('Files')) drop.classList.toggle('over', (depth = Math.max(0, depth - 1)) > 0);
  });
  addEventListener('dragover', (event) => event.preventDefault());
  addEventListener('drop', (event) => {
    event.preventDefault();
    depth = 0;
    drop.classList.remove('over');
    accept(event.dataTransfer?.files ?? []);
  });
  addEventListener('paste', (event) => event.clipboardData?.files.length && accept(event.clipboardData.files));
  drop.addEventListener('submit', (event) => event.preventDefault());
  $('depth').addEventListener('input', (event) => {
    $('depth-text').textContent = `${event.target.value} mm`;
  });
  addEventListener('hashchange', () => {
    for (const job of readFragment()) if (!cards.has(job)) resume(job);
  });
}

function animate(now) {
  for (const card of cards.values()) if (!card.isOver) card.draw(now);
  requestAnimationFrame(animate);
}

listen();
readFragment().reverse().forEach(resume);
requestAnimationFrame(animate);
