"""Progress of work that no Headway worker runs, over HTTP. Standard library only: copy this file beside your script.

    with Producer("http://127.0.0.1:8080", pipeline="generic") as job:
        for step in range(50):
            ...                                      # your work
            job.report(phase="GENERATING", stage="rendering", step=step + 1, steps=50, percent=2 * step + 2)
        job.result = {"frames": 50}

The bar can be watched from the first line on. A heartbeat of its own keeps the job alive while the work is silent; if this process dies,
the job ends FAILED producer_lost when its lease runs out.
"""

import argparse
import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
import uuid


class Cancelled(Exception):
    """Somebody asked for the end of the job: stop the work."""


class Lost(Exception):
    """The job is not ours any more: it was ended without us."""


class Producer:
    def __init__(self, gateway, job=None, pipeline="generic", params=None, **options):
        self.job, self.result = job or str(uuid.uuid4()), None
        self._url = f"{gateway.rstrip('/')}/v1/jobs/{self.job}/progress"
        self._token, self._write, self._lock, self._over = None, 0, threading.Lock(), threading.Event()
        name = f"{os.path.basename(__file__)}@{socket.gethostname()}"
        # The same nonce in every try: an answer that was lost costs nothing.
        opening = {"pipeline": pipeline, "nonce": str(uuid.uuid4()), "producer": name, "params": params or {}, **options}
        answer = self._send({"open": opening}, tries=5)
        self._token, self._beat = answer["token"], answer["lease_ms"] / 4000
        threading.Thread(target=self._keep, daemon=True).start()

    def report(self, **fields):
        """What changed: phase, percent, stage, step, steps, message, eta_ms and so on (docs/protocol.md). At most about 4 a second."""
        with self._lock:
            self._write += 1
            return self._take(self._send({"write": self._write, **fields}, tries=1))

    def complete(self, result=None):
        self._end({"phase": "COMPLETE", **({"result": result} if result is not None else {})})

    def fail(self, code, message, recoverable=False):
        self._end({"phase": "FAILED", "error": {"code": code, "message": message, "recoverable": recoverable}})

    def cancelled(self):
        self._end({"phase": "CANCELLED"})

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if kind is None:
            self.complete(self.result)
        elif kind is Cancelled:
            self.cancelled()
            return True
        elif kind is not Lost:
            self.fail("producer_failed", f"{kind.__name__}: {error}")
        return False

    def _end(self, body):
        self._over.set()
        with self._lock:
            self._send(body, tries=5)  # an end may be repeated

    def _keep(self):
        while not self._over.wait(self._beat):
            try:
                self._send(None, tries=1)
            except (Lost, urllib.error.HTTPError):
                return

    @staticmethod
    def _take(answer):
        if answer.get("cancel"):
            raise Cancelled(answer["cancel"].get("reason") or answer["cancel"]["by"])
        return answer

    def _send(self, body, tries):
        data = b"" if body is None else json.dumps(body, allow_nan=False).encode()
        headers = {"Content-Type": "application/json", **({"Headway-Write-Token": self._token} if self._token else {})}
        for attempt in range(tries):
            try:
                request = urllib.request.Request(self._url, data=data, headers=headers, method="POST")
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code == 409 and self._token:
                    raise Lost(f"job {self.job} is not ours any more") from None
                if error.code not in (429, 503):
                    raise
                problem = error
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                problem = error
            if attempt + 1 < tries:
                time.sleep(0.5 * 2**attempt)
        if tries > 1:
            raise problem
        return {}  # the bar waits, the work goes on


def main():
    parser = argparse.ArgumentParser(description="A stand-in for your work: counts to STEPS and reports it.")
    parser.add_argument("--gateway", default="http://127.0.0.1:8080")
    parser.add_argument("--job")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--delay", type=float, default=0.25, help="seconds per step")
    options = parser.parse_args()
    with Producer(options.gateway, job=options.job, params={"steps": options.steps}) as job:
        print(job.job, flush=True)
        for step in range(1, options.steps + 1):
            time.sleep(options.delay)
            job.report(phase="GENERATING", stage="counting", step=step, steps=options.steps, percent=round(100 * step / options.steps, 1))
        job.result = {"counted": options.steps}


if __name__ == "__main__":
    main()
