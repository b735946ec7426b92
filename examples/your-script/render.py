#!/usr/bin/env python3
"""Fifteen lines that any script may borrow: progress as lines of JSON on the descriptor that the worker opened."""
import json
import os
import time

updates = os.fdopen(int(os.environ.get("HEADWAY_PROGRESS_FD", "2")), "w", buffering=1)  # without a worker: to standard error


def tell(**fields):
    print(json.dumps(fields), file=updates)


for frame in range(1, 51):
    time.sleep(0.2)  # your work
    tell(stage="rendering", step=frame, steps=50, message=f"frame {frame}")
tell(result={"frames": 50})
