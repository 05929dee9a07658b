"""What a worker counts: in processes of their own, because an import decides where numbers lie."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

COUNT = """
import os, signal, sys
from prometheus_client import CollectorRegistry
from app.observe import watch
from workers.figures import Counted
child = os.fork()
if child == 0:
    watch.listen(Counted(CollectorRegistry(), lambda: {"allocated": 5.0}))
    with watch.phase("measure"):
        with watch.phase("fetch"):
            watch.moved("fetch", 7)
    watch.watching().ended("patch", "failed", 1.5, "non-finite-tensor")
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(child, 0)
from workers.figures import exposition
sys.stdout.write(exposition(None).decode())
"""


def counted(code: str, folder: Path) -> str:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


def test_what_a_killed_child_has_counted_is_shown_by_its_parent(tmp_path: Path) -> None:
    lines = counted(COUNT, tmp_path).splitlines()
    for line in (
        'adapter_safety_worker_phase_bytes_total{phase="fetch"} 7.0',
        'adapter_safety_worker_job_problems_total{problem="non-finite-tensor"} 1.0',
        'adapter_safety_worker_job_duration_seconds_sum{kind="patch",outcome="failed"} 1.5',
        'adapter_safety_worker_modules_total{decision="kept"} 0.0',
        "adapter_safety_worker_ready 0.0",
    ):
        assert line in lines
    assert not [line for line in lines if line.startswith("adapter_safety_worker_device")]
    assert "pid=" not in "".join(lines)


PHASES = """
import time
from app.observe import watch

class Kept:
    took = lambda self, phase, seconds: spent.__setitem__(phase, spent.get(phase, 0) + seconds)

spent = {}
watch.listen(Kept())
began = time.monotonic()
with watch.phase("measure"):
    time.sleep(0.05)
    with watch.phase("align"):
        time.sleep(0.1)
    time.sleep(0.05)
whole = time.monotonic() - began
assert abs(sum(spent.values()) - whole) < 0.01, (spent, whole)
assert spent["align"] >= 0.1 > whole - spent["measure"] - 0.05, spent
"""


def test_phases_within_each_other_add_up_to_the_whole(tmp_path: Path) -> None:
    counted(PHASES, tmp_path)


@pytest.mark.gpu
def test_a_devices_memory_is_told() -> None:
    from workers.figures import _cuda_bytes

    kept = torch.ones(1 << 20, device="cuda")
    found = _cuda_bytes()
    assert kept.nbytes <= found["allocated"] <= found["reserved"] <= found["total"]
