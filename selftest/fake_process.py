"""Stands for a fresh process in selftests: says what the JSON at FAKE_EVENTS has, then ends as
FAKE_END says. It is run as the Python of a fresh process, or in the place of its program."""

import json
import os
import signal
import subprocess
import sys
import time

spec = json.loads(sys.stdin.readline())
with open(sys.argv[-1], "a") as answers:
    for event in json.loads(os.environ.get("FAKE_EVENTS", "[]")):
        answers.write(json.dumps(event) + "\n")
print(os.environ.get("FAKE_SAYS", ""), file=sys.stderr, flush=True)
end = os.environ.get("FAKE_END", "")
if end == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if end == "hang":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(os.environ["FAKE_CHILD"], "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    time.sleep(600)
if end == "exit":
    sys.exit(3)
