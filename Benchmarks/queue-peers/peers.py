"""Other Redis job queues, measured on the Redis that `headway bench queue --peers` gives.

    peers.py list                  their names
    peers.py NAME URL JOBS         one JSON object: waits from submit to start of JOBS jobs that trickle in to one idle worker, and
                                   rates of submitting one by one and of draining a line that is there

One worker process each, at default settings. A job writes the time at which it starts; both ends read CLOCK_MONOTONIC.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time

PAYLOAD = json.dumps({"pad": "x" * 190})
HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = ["rq", "dramatiq", "taskiq", "bullmq"]
URL = os.environ.get("PEERS_URL", "redis://127.0.0.1:6379")
NAME = os.environ.get("PEERS_NAME", "")
DRAINED = 1000


def mark(number):
    """One line for the start of a job, in one write."""
    line = f"{number} {time.monotonic_ns()}\n".encode()
    descriptor = os.open(os.environ["PEERS_MARKS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line)
    os.close(descriptor)


def job(number, payload):
    mark(number)


# What workers import. Each library wants its broker at import time.
if NAME == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(url=URL))
    dramatiq_job = dramatiq.actor(job)
elif NAME == "taskiq":
    from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

    taskiq_broker = RedisStreamBroker(URL, consumer_id="0").with_result_backend(RedisAsyncResultBackend(URL))

    @taskiq_broker.task(task_name="job")
    async def taskiq_job(number, payload):
        mark(number)


class Queue:
    """What differs between the libraries: how one submits, and how a worker is started."""

    def __init__(self, name):
        self.name = name

    async def open(self):
        if self.name == "rq":
            import redis
            import rq

            self.queue = rq.Queue("peers", connection=redis.Redis.from_url(URL))
        elif self.name == "taskiq":
            await taskiq_broker.startup()
        elif self.name == "bullmq":
            import bullmq

            self.queue = bullmq.Queue("peers", {"connection": URL})

    async def submit(self, number):
        if self.name == "rq":
            self.queue.enqueue("peers.job", number, PAYLOAD)
        elif self.name == "dramatiq":
            dramatiq_job.send(number, PAYLOAD)
        elif self.name == "taskiq":
            await taskiq_job.kiq(number, PAYLOAD)
        else:
            await self.queue.add("job", {"number": number, "payload": PAYLOAD})

    def worker(self):
        python = [sys.executable, "-m"]
        command = {
            "rq": python + ["rq.cli", "worker", "-w", "rq.SimpleWorker", "--url", URL, "peers"],
            "dramatiq": python + ["dramatiq", "-p", "1", "-t", "8", "peers"],
            "taskiq": python + ["taskiq", "worker", "peers:taskiq_broker", "--workers", "1"],
            "bullmq": [sys.executable, os.path.join(HERE, "peers.py"), "work"],
        }[self.name]
        return subprocess.Popen(command, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    async def close(self):
        if self.name == "taskiq":
            await taskiq_broker.shutdown()
        elif self.name == "bullmq":
            await self.queue.close()


async def bullmq_work():
    import bullmq

    async def process(task, token):
        mark(task.data["number"])

    worker = bullmq.Worker("peers", process, {"connection": URL, "concurrency": 100})
    await asyncio.Event().wait()
    await worker.close()


def starts():
    try:
        with open(os.environ["PEERS_MARKS"]) as file:
            return {int(number): int(at) for number, at in (line.split() for line in file)}
    except FileNotFoundError:
        return {}


async def until(count, limit, what):
    deadline = time.monotonic() + limit
    while len(starts()) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{NAME}: {what}: {len(starts())} of {count} within {limit} s")
        await asyncio.sleep(0.05)


async def measure(jobs):
    queue = Queue(NAME)
    await queue.open()
    began = time.monotonic()
    for number in range(DRAINED):
        await queue.submit(number)
    submitted = DRAINED / (time.monotonic() - began)
    worker = queue.worker()
    try:
        await until(DRAINED, 120, "drained")
        times = sorted(starts().values())
        drained = (len(times) - 1) / (times[-1] - times[0]) * 1e9
        await asyncio.sleep(2)
        sent = {}
        for number in range(DRAINED, DRAINED + jobs):
            await asyncio.sleep(random.uniform(0.03, 0.07))
            sent[number] = time.monotonic_ns()
            await queue.submit(number)
        await until(DRAINED + jobs, 60, "started")
        at = starts()
        waits = [(at[number] - sent[number]) / 1e6 for number in sent]
    finally:
        # Its children too: the group is its own.
        os.killpg(worker.pid, 9)
        worker.wait()
    await queue.close()
    print(json.dumps({"milliseconds": waits, "submitted_per_second": submitted, "drained_per_second": drained}))


def main():
    arguments = sys.argv[1:]
    if arguments == ["list"]:
        print(" ".join(NAMES))
    elif arguments == ["work"]:
        asyncio.run(bullmq_work())
    elif len(arguments) == 3 and arguments[0] in NAMES:
        with tempfile.TemporaryDirectory() as directory:
            environment = dict(os.environ, PEERS_NAME=arguments[0], PEERS_URL=arguments[1], PEERS_MARKS=f"{directory}/marks")
            # Once more, now that what the libraries read at import is known.
            sys.exit(subprocess.run([sys.executable, __file__, "measure", arguments[2]], env=environment, check=False).returncode)
    elif len(arguments) == 2 and arguments[0] == "measure":
        asyncio.run(measure(int(arguments[1])))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    # Jobs are named by their module.
    sys.modules["peers"] = sys.modules["__main__"]
    main()
