"""Ctrl-C at a command that waits for a server's job."""

import signal
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen

from app.cli.exits import INTERRUPTED
from app.domain.job import Job
from tests.factory import World
from tests.faults.conftest import MakeSite
from tests.faults.processes import Site, until

CODE = (
    "import signal\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's `&` may ignore it
    "from app.cli import main; main()"
)
WITHIN_S = 30


def patching(site: Site, world: World, out: Path) -> "Popen[str]":
    models = ("--base-model", "base", "--chat-model", "chat")
    command = ("patch", world.adapter, *models, "--out", out, "--server", site.url)
    arguments = [sys.executable, "-c", CODE, *map(str, command)]
    return Popen(arguments, stdout=PIPE, stderr=PIPE, text=True)


def only_job(site: Site) -> Job | None:
    found = site.records.jobs(status=None, kind=None, limit=2, cursor=None).items
    return found[0] if found else None


def test_the_job_is_cancelled_and_nothing_is_left_here(
    make_site: MakeSite, world: World, tmp_path: Path
) -> None:
    """Of a job that no worker has taken."""
    site = make_site()
    site.start_api()
    command = patching(site, world, tmp_path / "out")
    job = until(lambda: only_job(site), "the job is there")
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=WITHIN_S)
    assert command.returncode == INTERRUPTED, said
    assert f"interrupted; job {job.id} is cancelled" in said
    assert "Traceback" not in said
    assert site.job(job.id).status == "cancelled"
    assert not (tmp_path / "out").exists()


def test_a_second_ctrl_c_leaves_at_once(make_site: MakeSite, world: World, tmp_path: Path) -> None:
    """Of a job that is held by nobody who would ever end it."""
    site = make_site()
    site.start_api()
    command = patching(site, world, tmp_path / "out")
    job = until(lambda: only_job(site), "the job is there")
    assert site.records.claim(job.id, lease_s=3600)
    command.send_signal(signal.SIGINT)
    until(lambda: site.job(job.id).cancel_requested or None, "it is asked to end")
    assert command.poll() is None  # it waits for that
    began = time.monotonic()
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=WITHIN_S)
    assert time.monotonic() - began < 5
    assert command.returncode == INTERRUPTED, said
    assert f"left; job {job.id} may still be there" in said
    assert site.job(job.id).status == "running"
