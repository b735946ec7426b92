// Words for numbers.

export function bytes(count) {
  if (!Number.isFinite(count)) return '';
  if (count < 1000) return `${count} B`;
  const units = ['kB', 'MB', 'GB'];
  const power = Math.min(units.length, Math.floor(Math.log10(count) / 3));
  const value = count / 1000 ** power;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[power - 1]}`;
}

/** 41_000 -> "40 s", 130_000 -> "2 min": no more precision than an estimate has. */
export function duration(ms) {
  const seconds = ms / 1000;
  if (seconds < 10) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 90) return `${Math.round(seconds / 5) * 5} s`;
  const minutes = seconds / 60;
  if (minutes < 90) return minutes < 5 ? `${(Math.round(minutes * 2) / 2).toString()} min` : `${Math.round(minutes)} min`;
  return `${(Math.round(minutes / 30) / 2).toString()} h`;
}

/** 1_234 -> "1.2 s": how long something took. */
export function exactly(ms) {
  if (ms < 950) return `${Math.max(0.1, ms / 1000).toFixed(1)} s`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, '0')} s`;
}

/** "about 40 s left", a range where the estimate is wide, or that there is none yet. `elapsed`: since the event came. */
export function remaining(event, elapsed) {
  if (event.stalled) return 'no sign of progress for a while';
  if (event.estimating || !Number.isFinite(event.eta_ms)) return 'estimating the time left';
  const left = (value) => Math.max(0, value - elapsed);
  const [middle, low, high] = [left(event.eta_ms), left(event.eta_low_ms ?? event.eta_ms), left(event.eta_high_ms ?? event.eta_ms)];
  if (middle < 3_000 && high < 10_000) return 'a few seconds left';
  if (high - low > 15_000 && high - low > 0.6 * middle) {
    const [from, to] = [duration(low), duration(high)];
    const [amount, unit] = from.split(' ');
    return from === to ? `about ${to} left` : `${unit === to.split(' ')[1] ? amount : from}–${to} left`;
  }
  return `about ${duration(middle)} left`;
}

/** "3 of 5 done · 1 running": how far the children of a group are. */
export function children(counts) {
  const others = ['running', 'waiting', 'failed', 'cancelled'].filter((state) => counts[state] > 0).map((state) => `${counts[state]} ${state}`);
  return [`${counts.complete ?? 0} of ${counts.expected} done`, ...others].join(' · ');
}

/** "shape_generation" -> "Shape generation" */
export function title(name) {
  const words = String(name ?? '').replaceAll(/[_-]+/g, ' ').trim();
  return words.charAt(0).toUpperCase() + words.slice(1).toLowerCase();
}

const REASONS = {
  no_worker: 'nobody is there to start it', paused: 'the queue is paused', learning: 'too early to say when it starts',
};

/** Where a `queue` event says that a job waits. */
export function place(event) {
  if (event.held_by) {
    const others = event.own_ahead > 0 ? `, ${event.own_ahead} of them before this one` : '';
    return `waiting until another of your jobs ends${others}`;
  }
  if (Number.isFinite(event.due_at)) return `waiting for its time, due in ${duration(Math.max(0, event.due_at - event.at))}`;
  const ahead = event.queue_ahead ?? event.queue_position;
  const why = REASONS[event.reason] ? `, ${REASONS[event.reason]}` : '';
  if (!Number.isFinite(ahead)) return `waiting in line${why}`;
  return (ahead <= 0 ? 'next in line' : `${ahead} ahead in line`) + why;
}

/** "starts in about 40 s": when a waiting job begins, or nothing. `elapsed`: since the event came. */
export function start(event, elapsed) {
  if (!Number.isFinite(event.eta_ms)) return '';
  const left = Math.max(0, event.eta_ms - elapsed);
  if (left < 1_000 && (event.eta_high_ms ?? 0) - elapsed < 5_000) return 'starts any moment';
  return `starts in ${remaining(event, elapsed).replace(/ left$/, '')}`;
}
