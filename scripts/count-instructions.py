#!/usr/bin/env python3
"""Count the instructions that redis-server spends on the scripts of the job queue, and a worker on a job, under callgrind.

    scripts/count-instructions.py .build/release/headway

Instructions do not depend on what else the machine does, as times do. Needs redis-server and valgrind; takes about a minute. The figures are
thousands of instructions per command, its reading and its answer included, in a queue that one tenant fills and one worker works off; and of
the worker's own process for a job that ends at once, the kernel's left out.
"""

import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid

CALLS = 300
WARM_UP = 60
BASE = "headway:{0}:"
PARAMS = '{"pad":"' + "x" * 190 + '"}'
RESULT = '{"played":0,"worker":"worker-1","attempt":1}'

FLOOR = {
    "submit": "redis.call('HSET', KEYS[1], 'payload', ARGV[1], 'state', 'queued')\nredis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])\nreturn 1",
    "claim": "local popped = redis.call('ZPOPMIN', KEYS[1])\nlocal key = 'floor:job:' .. popped[1]\n"
    "redis.call('HSET', key, 'state', 'running')\nredis.call('ZADD', KEYS[2], ARGV[1], popped[1])\n"
    "return { popped[1], redis.call('HGET', key, 'payload') }",
    "finish": "redis.call('ZREM', KEYS[2], ARGV[1])\nredis.call('HSET', KEYS[1], 'state', 'done')\n"
    "redis.call('EXPIRE', KEYS[1], 3600)\nreturn 1",
}


def callgrind(out):
    return ["valgrind", "--tool=callgrind", "--callgrind-out-file=" + out]


class Redis:
    """A redis-server, under callgrind or not, and one connection to it."""

    def __init__(self, directory, counts=True):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.out = os.path.join(directory, "callgrind")
        self.process = subprocess.Popen(
            (callgrind(self.out) if counts else [])
            + ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", directory],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", self.port))
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("redis-server did not start")
                time.sleep(0.05)
        self.file = self.socket.makefile("rb")

    def __call__(self, *words):
        parts = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        self.socket.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
        return self.reply()

    def reply(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return None if rest == b"-1" else [self.reply() for _ in range(int(rest))]
        raise SystemExit("redis-server said: " + line.decode(errors="replace"))

    def end(self):
        self.process.kill()
        self.process.wait()

    def control(self, *arguments):
        subprocess.run(["callgrind_control", *arguments, str(self.process.pid)], check=True, capture_output=True)

    def count(self, call):
        """Thousands of instructions that one call takes."""
        for _ in range(WARM_UP):
            call()
        self.control("--zero")
        for _ in range(CALLS):
            call()
        self.control("--dump")
        newest = max(glob.glob(self.out + ".*"), key=lambda path: int(path.rsplit(".", 1)[1]))
        table = subprocess.run(
            ["callgrind_annotate", "--inclusive=yes", "--threshold=99.9", newest], check=True, capture_output=True, text=True
        ).stdout
        # All of a command, and nothing of what redis-server does beside.
        found = re.search(r"^\s*([\d,]+) .*:readQueryFromClient\b", table, re.MULTILINE)
        return int(found.group(1).replace(",", "")) / CALLS / 1000


def main(headway):
    directory = tempfile.mkdtemp(prefix="headway-instructions-")
    redis = Redis(directory)
    try:
        for name, figure in measured(redis, headway):
            print(f"{name:<42}{figure:8.0f}", flush=True)
    finally:
        redis.end()
        shutil.rmtree(directory)
    # What a worker does once is in both, and falls out.
    few, many = (worker(headway, jobs) for jobs in (1000, 4000))
    print(f"{'a job in the worker itself':<42}{(many - few) / 3000 / 1000:8.0f}")


def script(headway, name):
    return subprocess.run([headway, "scripts", name], check=True, capture_output=True, text=True).stdout


def submit_to(redis, sha, jobs):
    pairs = [text for job in jobs for text in (job, PARAMS)]
    redis("EVALSHA", sha, 2, BASE + "job:" + jobs[0], "headway:{wake}:gpu", "PUBLISH", "gpu", len(jobs), 0, "generic",
          "anonymous", 5, 3, 3600000, *pairs)


def worker(headway, jobs):
    """Instructions of a worker process that works off so many jobs."""
    directory = tempfile.mkdtemp(prefix="headway-instructions-")
    redis = Redis(directory, counts=False)
    process = None
    try:
        submit = redis("SCRIPT", "LOAD", script(headway, "submit"))
        for _ in range(jobs // 50):
            submit_to(redis, submit, [str(uuid.uuid4()) for _ in range(50)])
        # valgrind cannot read the debug information of every Swift.
        bare = os.path.join(directory, "headway")
        subprocess.run(["strip", "-o", bare, headway], check=True)
        log = os.path.join(directory, "log")
        process = subprocess.Popen(
            callgrind(os.path.join(directory, "worker"))
            + ["--log-file=" + log, bare, "bench", "worker", "--redis", f"redis://127.0.0.1:{redis.port}", "--queue", "gpu", "--name", "worker",
               "--marks", os.path.join(directory, "marks"), "--work-dir", os.path.join(directory, "work")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 300
        while redis("HGET", BASE + "queue:gpu:meta", "complete") != str(jobs):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the worker did not work off its jobs")
            time.sleep(0.2)
        process.terminate()
        process.wait(timeout=60)
        with open(log, encoding="utf-8") as told:
            return int(re.search(r"Collected : (\d+)", told.read()).group(1))
    finally:
        if process:
            process.kill()
        redis.end()
        shutil.rmtree(directory)


def measured(redis, headway):
    floor = {name: redis("SCRIPT", "LOAD", text) for name, text in FLOOR.items()}
    ours = {name: redis("SCRIPT", "LOAD", script(headway, name)) for name in ("submit", "claim", "advance", "finish", "cancel")}
    ids = iter(str(uuid.uuid4()) for _ in range(100_000))
    state = {}

    def floor_submit():
        job = next(ids)
        redis("EVALSHA", floor["submit"], 2, "floor:job:" + job, "floor:ready", PARAMS, 1, job)

    def floor_claim():
        state["floor"] = redis("EVALSHA", floor["claim"], 2, "floor:ready", "floor:leases", 1)[0]

    def floor_finish():
        redis("EVALSHA", floor["finish"], 2, "floor:job:" + state["floor"], "floor:leases", state["floor"])

    def submit(count=1):
        jobs = [next(ids) for _ in range(count)]
        state.setdefault("waiting", []).extend(jobs)
        submit_to(redis, ours["submit"], jobs)

    def cancel():
        answer = redis("EVALSHA", ours["cancel"], 2, BASE + "job:" + state["waiting"].pop(), "headway:{wake}:_", "PUBLISH", "me", "",
                       10000, "headway:worker:")
        assert answer == ["cancelled"]

    def claim():
        state["nonce"] = uuid.uuid4().hex
        answer = redis("EVALSHA", ours["claim"], 2, BASE + "queue:gpu:ready", "headway:{wake}:gpu", "PUBLISH", "gpu", "worker-1",
                       state["nonce"], 20000, "abcdef01")
        state["job"], state["fence"] = answer[1:3]

    def report():
        state["write"] = write = state.get("write", 0) + 1
        answer = redis("EVALSHA", ours["advance"], 1, BASE + "job:" + state["job"], "PUBLISH", state["fence"], write, 20000, "GENERATING",
                       write, write, "percent_per_s", "1.5", "stage", "shape_generation", "stage_percent", write, "step", write,
                       "steps", 5000, "message", "Diffusion Sampling", "eta_ms", 30000 - write, "eta_low_ms", 20000, "eta_high_ms", 40000)
        assert answer[0] == "ok"

    def finish(*following):
        return redis("EVALSHA", ours["finish"], 2, BASE + "job:" + state["job"], "headway:{wake}:gpu", "PUBLISH", state["fence"], "COMPLETE",
                     RESULT, "", state["nonce"], *following)

    def go_on():
        state["job"], state["fence"] = finish("gpu", "worker-1", 20000, "abcdef01")[2:4]
        state["nonce"] = ""

    def both(one, other):
        def call():
            one()
            other()
        return call

    yield "floor: submit", redis.count(floor_submit)
    for _ in range(2 * (CALLS + WARM_UP)):
        floor_submit()
    yield "floor: claim", redis.count(floor_claim)
    yield "floor: claim and finish", redis.count(both(floor_claim, floor_finish))
    yield "submit", redis.count(submit)
    yield "submit, 16 in a call, each", redis.count(lambda: submit(16)) / 16
    yield "cancel of a waiting job", redis.count(cancel)
    yield "claim", redis.count(claim)
    yield "claim and finish", redis.count(both(claim, finish))
    claim()
    yield "finish with the next claim", redis.count(go_on)
    yield "report of progress, ten fields", redis.count(report)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
