"""Progress lines for a Headway worker. Standard library only: copy this file beside your script.

    import headway_progress as headway
    headway.progress("training", step, steps, message="loss 0.12")

Under `headway worker -- python3 your_script.py` each call writes one line of JSON to the descriptor named by
HEADWAY_PROGRESS_FD. Without that variable every call does nothing, so a script runs the same on its own.
"""

import json
import os
import threading
import time

# A bar needs no more than this many updates a second; what comes faster within one stage is dropped here,
# except its last step, so that a tight loop may call progress() on every turn.
UPDATES_PER_SECOND = 20

_lock = threading.Lock()
_fd = None
_last = (None, 0.0)
try:
    _fd = int(os.environ["HEADWAY_PROGRESS_FD"])
except (KeyError, ValueError):
    pass


def _send(message):
    global _fd
    line = (json.dumps(message, allow_nan=False) + "\n").encode()
    while line and _fd is not None:
        try:
            line = line[os.write(_fd, line):]
        except OSError:
            _fd = None  # the worker is gone: the work itself may go on


def progress(stage, step=None, steps=None, percent=None, message=None, item=None, items=None):
    """Step `step` of `steps` of `stage` is done, or `percent` (0-100) of the stage; of item `item` of `items`."""
    global _last
    fields = dict(step=step, steps=steps, percent=percent, message=message, item=item, items=items)
    now = time.monotonic()
    with _lock:
        is_last = (step is not None and step == steps) or percent == 100
        if not is_last and _last[0] == (stage, item) and now - _last[1] < 1 / UPDATES_PER_SECOND:
            return
        _last = ((stage, item), now)
        _send({"stage": stage, **{name: value for name, value in fields.items() if value is not None}})


def log(text):
    """One line for the job's log."""
    with _lock:
        _send({"log": text})


def preview(name):
    """`name` is an image in the output directory that may be shown while the job runs."""
    with _lock:
        _send({"preview": name})


def result(**fields):
    """What the job's watchers get with COMPLETE."""
    with _lock:
        _send({"result": fields})


def error(code, message, recoverable=False):
    """Why the script is about to exit with a non-zero status; `recoverable`: another attempt may succeed."""
    with _lock:
        _send({"error": {"code": code, "message": message, "recoverable": recoverable}})
