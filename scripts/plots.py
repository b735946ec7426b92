#!/usr/bin/env python3
"""Plots of docs/plots: replays recorded jobs through `headway replay` and through what most programs do, and draws both.

usage: plots.py HEADWAY OUT TRACES...

TRACES are files of finished jobs as `headway trace` prints them. The jobs are played in the order of their time; the first 40 % teach
and are not drawn. Nothing but Python's standard library is needed, and the same traces give the same bytes.
"""
import json
import math
import os
import subprocess
import sys

QUERIES = 100
UNSCORED = 0.4
METHODS = [("headway", "Headway", "#0a7d4f"), ("weights", "fixed stage weights", "#c2570c"), ("tqdm", "steps and their rate (tqdm)", "#5b5bd6")]


class Units:
    """Steps done of all stages; a stage without steps counts as one."""

    def __init__(self, job):
        self.most = {stage["name"]: stage["units"] or 1 for stage in job["plan"]}
        self.done = dict.fromkeys(self.most, 0)

    def take(self, kind, stage, value, t):
        if kind == "tick":
            self.done[stage] = value
        elif kind == "end":
            self.done[stage] = self.most[stage]

    def share(self):
        return sum(self.done.values()) / sum(self.most.values())


class Weights(Units):
    """Each stage has the share of the bar that its author declared; the time left follows from the share so far."""

    def __init__(self, job):
        super().__init__(job)
        self.weight = {name: job["declared"].get(name) or 1 for name in self.most}

    def answer(self, t):
        whole = sum(self.weight.values())
        share = sum(self.weight[name] * self.done[name] / self.most[name] for name in self.most) / whole
        return share, t / share * (1 - share) if share > 0 else None, None, None


class Tqdm(Units):
    """tqdm 4.70: exponential means of steps and seconds (0.3), at most ten updates a second."""

    def __init__(self, job):
        super().__init__(job)
        self.last, self.last_t, self.steps, self.seconds = 0, 0.0, 0.0, 0.0

    def take(self, kind, stage, value, t):
        super().take(kind, stage, value, t)
        now = sum(self.done.values())
        if now > self.last and t - self.last_t >= 0.1:
            self.steps = 0.3 * (now - self.last) + 0.7 * self.steps
            self.seconds = 0.3 * (t - self.last_t) + 0.7 * self.seconds
            self.last, self.last_t = now, t

    def answer(self, t):
        now, whole = sum(self.done.values()), sum(self.most.values())
        rate = self.steps / self.seconds if self.seconds else 0
        return now / whole, (whole - now) / rate if rate else None, None, None


class Headway:
    """The shipped estimator, as its worker runs it."""

    def __init__(self, program):
        self.process = subprocess.Popen([program, "replay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, **message):
        print(json.dumps(message), file=self.process.stdin)

    def ask(self, job, t):
        self.send(op="query", job=job, t=t)
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["p"], answer["eta"], answer["lo"], answer["hi"]


def events(job):
    """In the order in which they came: a stage may begin at the very time at which the one before it ticked last and ended."""
    for stage in job["stages"]:
        yield stage["start"], "start", stage["name"], None
        for t, value in stage["ticks"]:
            yield t, "tick", stage["name"], value
        yield stage["end"], "end", stage["name"], None


def play(program, path):
    """For every method the answers at each hundredth of every scored job: [(share of true time, answer, duration)]."""
    with open(path) as lines:
        jobs = [json.loads(line) for line in lines if line.strip()]
    jobs.sort(key=lambda job: job["t"])
    headway = Headway(program)
    answers = {name: [] for name, _, _ in METHODS}
    for number, job in enumerate(jobs):
        duration = max(stage["end"] for stage in job["stages"])
        start = {key: job.get(key) for key in ("pipeline", "worker", "wclass", "params", "cold", "plan", "declared")}
        headway.send(op="start", job=number, t=job["t"], **start)
        others = {"weights": Weights(job), "tqdm": Tqdm(job)}
        todo = list(events(job))
        taken = 0
        for step in range(1, QUERIES):
            t = duration * step / QUERIES
            while taken < len(todo) and todo[taken][0] <= t:
                at, kind, stage, value = todo[taken]
                taken += 1
                message = {"op": {"start": "stage_start", "tick": "tick", "end": "stage_end"}[kind], "job": number, "stage": stage, "t": at}
                headway.send(**message, **({"value": value} if kind == "tick" else {}))
                for other in others.values():
                    other.take(kind, stage, value, at)
            if number >= UNSCORED * len(jobs):
                answers["headway"].append((step, headway.ask(number, t), duration))
                for name, other in others.items():
                    answers[name].append((step, other.answer(t), duration))
            else:
                headway.ask(number, t)
        headway.send(op="complete", **{**job, "job": number})
    headway.process.stdin.close()
    headway.process.wait()
    return answers


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Panel:
    """Axes of one data set within a plot; x and y run from 0 to their ends in the units of the labels."""

    WIDTH, HEIGHT, LEFT, TOP = 300, 230, 52, 54

    def __init__(self, index, title, top, xlabel, ylabel):
        self.x0 = self.LEFT + index * (self.WIDTH + self.LEFT + 18)
        self.top = top
        self.parts = []
        for tick in range(0, 101, 20):
            x, y = self.x(tick), self.y(top * tick / 100)
            self.parts.append(f'<path class="grid" d="M{x} {self.TOP}V{self.TOP + self.HEIGHT}M{self.x0} {y}H{self.x0 + self.WIDTH}"/>')
            self.parts.append(f'<text x="{x}" y="{self.TOP + self.HEIGHT + 16}" text-anchor="middle">{tick}</text>')
            self.parts.append(f'<text x="{self.x0 - 6}" y="{y + 4}" text-anchor="end">{top * tick / 100:g}</text>')
        middle = self.x0 + self.WIDTH / 2
        self.parts.append(f'<text class="title" x="{middle}" y="{self.TOP - 10}" text-anchor="middle">{title}</text>')
        self.parts.append(f'<text x="{middle}" y="{self.TOP + self.HEIGHT + 34}" text-anchor="middle">{xlabel}</text>')
        y = self.TOP + self.HEIGHT / 2
        self.parts.append(f'<text transform="translate({self.x0 - 38} {y}) rotate(-90)" text-anchor="middle">{ylabel}</text>')

    def x(self, value):
        return round(self.x0 + self.WIDTH * value / 100, 1)

    def y(self, value):
        return round(self.TOP + self.HEIGHT * (1 - min(max(value, 0), self.top) / self.top), 1)

    def line(self, points, colour, width=2, dash=""):
        path = "M" + "L".join(f"{self.x(x)} {self.y(y)}" for x, y in points)
        extra = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{extra}/>')

    def band(self, low, high, colour):
        path = "M" + "L".join(f"{self.x(x)} {self.y(y)}" for x, y in low + high[::-1]) + "Z"
        self.parts.append(f'<path d="{path}" fill="{colour}" fill-opacity="0.13"/>')

    def bar(self, x, width, value, colour):
        y = self.y(value)
        left = self.x(x)
        self.parts.append(
            f'<rect x="{left}" y="{y}" width="{round(self.x(x + width) - left, 1)}" height="{round(self.TOP + self.HEIGHT - y, 1)}" '
            f'fill="{colour}" fill-opacity="0.75"/>')


def write(path, heading, panels, legend):
    width = Panel.LEFT + len(panels) * (Panel.WIDTH + Panel.LEFT + 18) - Panel.LEFT
    height = Panel.TOP + Panel.HEIGHT + 66
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{heading}">',
        '<style>text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:600}.heading{font-size:14px;font-weight:600}'
        '.grid{stroke:#ddd;stroke-width:1}</style>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text class="heading" x="{Panel.LEFT}" y="22">{heading}</text>',
    ]
    for panel in panels:
        parts += panel.parts
    x = Panel.LEFT
    for label, colour in legend:
        parts.append(f'<rect x="{x}" y="{height - 20}" width="12" height="12" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17}" y="{height - 10}">{label}</text>')
        x += 40 + 6.6 * len(label)
    with open(path, "w") as file:
        file.write("\n".join(parts + ["</svg>\n"]))
    print(path)


def by_step(answers):
    steps = {}
    for step, answer, duration in answers:
        steps.setdefault(step, []).append((answer, duration))
    return sorted(steps.items())


def linearity(index, title, answers):
    panel = Panel(index, title, 100, "time passed, % of the job's duration", "bar, %")
    panel.line([(0, 0), (100, 100)], "#999", 1, "4 4")
    for name, _, colour in METHODS[::-1]:
        steps = [(step, [100 * answer[0] for answer, _ in found]) for step, found in by_step(answers[name])]
        panel.band([(s, quantile(v, 0.1)) for s, v in steps], [(s, quantile(v, 0.9)) for s, v in steps], colour)
        panel.line([(s, quantile(v, 0.5)) for s, v in steps], colour)
    return panel


def error(index, title, answers):
    panel = Panel(index, title, 60, "time passed, % of the job's duration", "error of the time left, % of the duration")
    for name, _, colour in METHODS[::-1]:
        points = []
        for step, found in by_step(answers[name]):
            misses = []
            for (_, eta, _, _), duration in found:
                rest = duration * (1 - step / QUERIES)
                misses.append(100 * abs(eta - rest) / duration if eta is not None else 100)
            points.append((step, quantile(misses, 0.5)))
        panel.line(points, colour)
    return panel


def coverage(index, title, answers):
    panel = Panel(index, title, 100, "time passed, % of the job's duration", "truth inside the interval, %")
    inside = {}
    for step, (_, _, low, high), duration in answers["headway"]:
        if low is not None and high is not None:
            rest = duration * (1 - step / QUERIES)
            inside.setdefault(min(step * 10 // QUERIES, 9), []).append(low <= rest <= high)
    for tenth, hits in sorted(inside.items()):
        panel.bar(10 * tenth + 1, 8, 100 * sum(hits) / len(hits), METHODS[0][2])
    panel.line([(0, 80), (100, 80)], "#c2570c", 1.5, "5 4")
    return panel


def figures(title, answers):
    """What the plots show, in a line each."""
    for name, label, _ in METHODS:
        lines, misses = {}, []
        for position, (step, (share, eta, _, _), duration) in enumerate(answers[name]):
            job = position // (QUERIES - 1)
            lines[job] = max(lines.get(job, 0), abs(share - step / QUERIES))
            misses.append(abs(eta - duration * (1 - step / QUERIES)) / duration if eta is not None else 1)
        print(f"{title}: {label}: bar off by {100 * sum(lines.values()) / len(lines):.1f} % at most (mean of jobs), "
              f"time left off by {100 * sum(misses) / len(misses):.1f} % of the duration")


def main():
    if len(sys.argv) < 4 or not all(map(os.path.exists, sys.argv[3:])):
        sys.exit(__doc__)
    program, out, paths = sys.argv[1], sys.argv[2], sys.argv[3:]
    os.makedirs(out, exist_ok=True)
    sets = [(os.path.basename(path).rsplit(".", 1)[0], play(program, path)) for path in paths]
    legend = [(label, colour) for _, label, colour in METHODS]
    draw = lambda kind: [kind(index, title, answers) for index, (title, answers) in enumerate(sets)]
    write(f"{out}/linearity.svg", "The bar against true time: median of the jobs, and the middle 80 % of them", draw(linearity), legend)
    write(f"{out}/eta-error.svg", "Error of the remaining time, median of the jobs (the top is 60 % and more)", draw(error), legend)
    write(f"{out}/coverage.svg", "How often the truth is inside the 80 % interval", draw(coverage), [("Headway", METHODS[0][2]), ("80 %", "#c2570c")])
    for title, answers in sets:
        assert all(math.isfinite(answer[0]) for _, answer, _ in answers["headway"])
        figures(title, answers)


if __name__ == "__main__":
    main()
