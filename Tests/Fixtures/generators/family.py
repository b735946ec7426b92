"""A generator for tests that leaves processes behind in every way: its arguments are a directory for their ids and how long it stays.

leader: this one. stubborn: a child that ignores SIGTERM. daemon: a grandchild in a session of its own without any open file.
threaded: started by a thread, in a session of its own.
"""
import os
import subprocess
import sys
import threading
import time

path, seconds = sys.argv[1], float(sys.argv[2])


def note(name, pid):
    with open(f"{path}/.{name}", "w") as file:
        file.write(f"{pid}\n")
    os.rename(f"{path}/.{name}", f"{path}/{name}")


if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note("daemon", os.getpid())
            os.closerange(0, 64)
            time.sleep(300)
    os._exit(0)
os.wait()
stubborn = subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
note("stubborn", stubborn.pid)


def start():
    other = subprocess.Popen(["sleep", "300"], start_new_session=True)
    note("threaded", other.pid)
    time.sleep(300)


threading.Thread(target=start, daemon=True).start()
while not all(os.path.exists(f"{path}/{name}") for name in ("threaded", "daemon")):
    time.sleep(0.01)
note("leader", os.getpid())
time.sleep(seconds)
