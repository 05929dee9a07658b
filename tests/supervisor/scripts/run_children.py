"""Runs a Supervisor over stand-ins: run_children.py SPECIFICATION (JSON)."""

import json
import os
import sys
from pathlib import Path

from app.supervisor.child import Child
from app.supervisor.errors import SupervisorError
from app.supervisor.processes import Backoff, Supervisor

spec = json.loads(sys.argv[1])
folder = Path(spec["folder"])
events = folder / "events"
events.touch()


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def child(name: str, manner: str) -> Child:
    script = Path(__file__).with_name("stand_in.py")
    watch = ["--watch"] if spec["watchdog"] else []

    def missing() -> str | None:
        if manner == "family" and f"{name} grandchild" not in events.read_text():
            return "it has no child yet"
        return None if f"{name} started" in events.read_text() else "it did not start yet"

    return Child(
        name=name,
        command=[sys.executable, str(script), str(events), name, manner, *watch],
        environment=os.environ,
        log=folder / "logs" / f"{name}.log",
        probe=(lambda: "it never is") if name == "unready" else missing if spec["probe"] else None,
        ready_within_s=spec["ready_within_s"],
        grace_s=spec["grace_s"],
    )


supervisor = Supervisor(
    [child(name, manner) for name, manner in spec["children"]],
    tell=tell,
    backoff=Backoff(first_s=0.05, give_up_after=3),
    verbose=spec["verbose"],
    watchdog=spec["watchdog"],
)
try:
    sys.exit(supervisor.run(lambda: tell("READY")))
except SupervisorError as error:
    tell(f"FAILED {error}")
    sys.exit(1)
