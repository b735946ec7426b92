"""A generator for tests: real steps with real time between them, as its parameters ask.

params: {"steps": 20, "delay_ms": 50, "stages": ["analysis", "making"], "exit": 0, "error": {…}, "output": "text"}
"""
import json
import os
import sys
import time

job = json.load(sys.stdin)
params = job["params"]
steps = params.get("steps", 20)
delay = params.get("delay_ms", 50) / 1000
out = os.fdopen(int(os.environ["HEADWAY_PROGRESS_FD"]), "w", buffering=1)


def say(**line):
    print(json.dumps(line), file=out)


for stage in params.get("stages", ["making"]):
    for step in range(1, steps + 1):
        time.sleep(delay)
        say(stage=stage, step=step, steps=steps)
if "output" in params:
    with open(os.path.join(os.environ["HEADWAY_OUTPUT_DIR"], "out.txt"), "w") as file:
        file.write(params["output"])
if "error" in params:
    say(error=params["error"])
say(result={"attempt": job["attempt"]})
sys.exit(params.get("exit", 0))
