"""Runs the whole service: run_up.py SPECIFICATION (JSON)."""

import json
import os
import sys
from pathlib import Path

from app.supervisor.errors import SupervisorError
from app.supervisor.up import Timings, run_up

spec = json.loads(sys.argv[1])


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


try:
    sys.exit(
        run_up(
            data_dir=Path(spec["folder"]),
            host=spec["host"],
            port=spec["port"],
            redis_url=spec["redis_url"],
            environment=os.environ,
            api_command=lambda fd: [word.replace("FD", str(fd)) for word in spec["api"]],
            worker_command=spec["worker"],
            on_ready=lambda url: tell(f"READY {url}"),
            tell=tell,
            timings=Timings(worker_grace_s=5, api_grace_s=5),
        )
    )
except SupervisorError as error:
    tell(f"FAILED {error}")
    sys.exit(1)
