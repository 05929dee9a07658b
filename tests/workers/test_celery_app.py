"""The worker's frame: what the queue sends exists, and nothing heavy happens before the fork.

Each check looks at a process of its own: Celery keeps one registry of tasks a process.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

from app.domain.job import KINDS
from app.storage.queue import TASK_NAMES

LOOK = """
import json
from workers.celery_app import app
app.loader.import_default_modules()
print(json.dumps({"tasks": list(app.tasks), "limit": app.conf.task_time_limit, "timeouts": [
    app.conf.broker_transport_options["visibility_timeout"],
    app.conf.result_backend_transport_options["visibility_timeout"],
    app.conf.visibility_timeout,
]}))
"""


@pytest.fixture(scope="module")
def worker() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def test_every_name_that_the_queue_sends_is_registered_in_the_worker(
    worker: dict[str, Any],
) -> None:
    assert set(TASK_NAMES) == set(KINDS)
    assert set(TASK_NAMES.values()) <= set(worker["tasks"])


def test_the_broker_waits_longer_than_the_longest_job_in_all_three_places(
    worker: dict[str, Any],
) -> None:
    assert len(worker["timeouts"]) == 3
    assert all(timeout > worker["limit"] for timeout in worker["timeouts"])


@pytest.mark.parametrize("module", ["workers.celery_app", "workers.tasks", "app.main"])
def test_the_parent_and_the_api_never_import_torch_or_touch_storage(module: str) -> None:
    code = f"""
import sys, {module}
if {module!r} == "app.main":
    app.main.create_app()
heavy = {{"torch", "transformers", "peft", "safetensors", "numpy"}} & set(sys.modules)
assert not heavy, heavy
assert "obstore" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_inspect_needs_no_torch() -> None:
    code = "import sys, app.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
