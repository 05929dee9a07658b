"""A child that does what its arguments say and writes down what happened to it.

    stand_in.py EVENTS NAME [steady|stubborn|brief|family|wild]

steady waits for SIGTERM; stubborn ignores it; brief ends at once with code 3; family has a child of
its own that asked to die with it; wild has one that did not ask and ignores SIGTERM.
"""

import os
import signal
import sys
from pathlib import Path

from app.supervisor.launch import die_with_parent

events, name, manner = Path(sys.argv[1]), sys.argv[2], sys.argv[3]


def note(what: str) -> None:
    with events.open("a") as file:
        file.write(f"{name} {what} {os.getpid()}\n")


def stop(_number: int, _frame: object) -> None:
    note("stopped")
    sys.exit(0)


def raise_a_child() -> None:
    parent = os.getpid()
    if os.fork():
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if manner == "family":
        die_with_parent(parent, watch="--watch" in sys.argv)
    note("grandchild")
    while True:
        signal.pause()


signal.signal(signal.SIGTERM, signal.SIG_IGN if manner == "stubborn" else stop)
if manner in ("family", "wild"):
    raise_a_child()
sys.stdout.write(f"{name} says hello\n")
sys.stdout.flush()
note("started")
if manner == "brief":
    sys.exit(3)
while True:
    signal.pause()
