"""`adapter-safety worker-health`: for the health check of a worker's container."""

import time

import typer

from app.cli.exits import NOT_HELD, explained, fail
from app.config import Settings


def worker_health() -> None:
    """Say whether this machine's workers do work, by what their children have lately done.

    Exit 0 where nothing is wrong that a restart may mend, 1 where something is, or where no worker
    has said anything yet. It asks no network: a broker that is away is no reason to restart.
    """
    from workers.health import read_healths  # here, so that no other command imports it

    with explained():
        found = list(read_healths(Settings().health_dir))
    troubles = [trouble for each in found if (trouble := each.trouble(time.monotonic()))]
    if not found:
        raise fail("No worker of this machine has said anything yet.", NOT_HELD)
    if troubles:
        raise fail("; ".join(troubles), NOT_HELD)
    for each in found:
        typer.echo(f"worker {each.pid}: {each.state}")
