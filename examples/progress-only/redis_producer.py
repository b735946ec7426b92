"""Progress of work that no Headway worker runs, straight into Redis: the same scripts that the gateway calls.

    for name in open report heartbeat finish fail; do headway scripts $name > $name.lua; done

    job = Producer(redis.Redis.from_url("redis://127.0.0.1:6379").execute_command, scripts=".", job="nightly-42")
    job.report(phase="GENERATING", stage="counting", percent=40, step=4, steps=10)
    job.complete({"frames": 10})

Any client whose call takes a command's words will do: redis-py's execute_command, or the few lines of `Connection` below, which need
nothing but the standard library. KEYS and ARGV of each script stand at the head of its text; docs/redis.md says more.
"""

import argparse
import hashlib
import json
import os
import secrets
import socket
import threading
import time
import urllib.parse
import uuid

# Percents travel as whole tenths, so that Lua never rounds them.
TENTHS = {"stage_percent"}


class Lost(Exception):
    """The job is not ours any more: it was ended without us."""


class Producer:
    def __init__(self, execute, scripts, job=None, pipeline="generic", owner="anonymous", params=None, prefix="headway", tag="0",
                 lease_ms=20_000, ttl_ms=3_600_000):
        self.job, self.cancel, self._execute, self._lease_ms = job or str(uuid.uuid4()), None, execute, lease_ms
        self._key, self._wake = f"{prefix}:{{{tag}}}:job:{self.job}", f"{prefix}:{{wake}}:_"
        self._write, self._lock, self._over = 0, threading.Lock(), threading.Event()
        self._scripts = {}
        for name in ("open", "report", "heartbeat", "finish", "fail"):
            with open(os.path.join(scripts, f"{name}.lua"), encoding="utf-8") as file:
                self._scripts[name] = file.read()
        token, nonce, worker = secrets.token_hex(16), str(uuid.uuid4()), f"{os.path.basename(__file__)}@{socket.gethostname()}"
        status, *rest = self._run("open", [self._key], "PUBLISH", token, nonce, lease_ms, "pipeline", pipeline, "owner", owner,
                                  "params", json.dumps(params or {}), "worker", worker, "ttl_ms", ttl_ms)
        if status == "conflict":
            raise ValueError(f"the id {self.job} is taken")
        self._token = rest[0]
        threading.Thread(target=self._keep, daemon=True).start()

    def report(self, phase="", percent=None, phase_percent=None, **fields):
        """What changed. Afterwards `cancel` says who wants the job to end, if anybody does."""
        with self._lock:
            self._write += 1
            named = []
            for name, value in fields.items():
                named += [name, round(10 * value) if name in TENTHS else value]
            tenths = ["" if value is None else round(10 * value) for value in (percent, phase_percent)]
            status, *rest = self._run("report", [self._key], "PUBLISH", self._token, self._write, self._lease_ms, phase, *tenths, *named)
            return self._judge(status, rest[2] if status == "ok" else "")

    def complete(self, result=None):
        self._finish("COMPLETE", "" if result is None else json.dumps(result))

    def cancelled(self):
        self._finish("CANCELLED", "")

    def fail(self, code, message):
        self._over.set()
        error = json.dumps({"code": code, "message": message[:500], "recoverable": False}, separators=(",", ":"))
        self._judge(self._run("fail", [self._key, self._wake], "PUBLISH", self._token, error, "0", "0", "")[0])

    def _finish(self, phase, result):
        self._over.set()
        self._judge(self._run("finish", [self._key, self._wake], "PUBLISH", self._token, phase, result, "")[0])

    def _keep(self):
        while not self._over.wait(self._lease_ms / 4000):
            try:
                with self._lock:
                    status, *rest = self._run("heartbeat", [self._key], self._token, self._lease_ms)
                    self._judge(status, rest[0] if rest else "")
            except OSError:
                continue  # Redis is away: the lease decides
            except Lost:
                return

    def _judge(self, status, cancel=""):
        if status == "lost":
            raise Lost(f"job {self.job} is not ours any more")
        if cancel:
            self.cancel = json.loads(cancel)

    def _run(self, name, keys, *arguments):
        words = [len(keys), *keys, *arguments]
        text = self._scripts[name]
        try:
            answer = self._execute("EVALSHA", hashlib.sha1(text.encode()).hexdigest(), *words)
        except Exception as error:
            if not str(error).lower().startswith(("noscript", "no matching script")):
                raise
            answer = self._execute("EVAL", text, *words)
        return [part.decode() if isinstance(part, bytes) else part for part in answer]


class Connection:
    """The smallest Redis client that does: redis:// and unix://, one connection, one command at a time (RESP2)."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(parts.path)
        else:
            self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=10)
        self._socket.settimeout(10)
        self._file, self._lock = self._socket.makefile("rb"), threading.Lock()
        if parts.password:
            self(*["AUTH", *([parts.username] if parts.username else []), parts.password])
        if parts.path.strip("/") and parts.scheme != "unix":
            self("SELECT", parts.path.strip("/"))

    def __call__(self, *words):
        encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        with self._lock:
            self._socket.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))
            return self._read()

    def _read(self):
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"$":
            return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._read() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest


def main():
    parser = argparse.ArgumentParser(description="A stand-in for your work: counts to STEPS and reports it.")
    parser.add_argument("--redis", default="redis://127.0.0.1:6379")
    parser.add_argument("--scripts", default=".", help="directory with what `headway scripts NAME` printed, each as NAME.lua")
    parser.add_argument("--job")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--delay", type=float, default=0.25, help="seconds per step")
    options = parser.parse_args()
    job = Producer(Connection(options.redis), options.scripts, job=options.job, params={"steps": options.steps})
    print(job.job, flush=True)
    for step in range(1, options.steps + 1):
        time.sleep(options.delay)
        job.report(phase="GENERATING", stage="counting", step=step, steps=options.steps, percent=100 * step / options.steps)
        if job.cancel:
            return job.cancelled()
    return job.complete({"counted": options.steps})


if __name__ == "__main__":
    main()
