"""`adapter-safety jobs`: what a server does, has done and has left behind."""

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.examples import epilog
from app.cli.exits import explained
from app.cli.patch_options import selection
from app.cli.report_files import check_parent
from app.cli.tables import print_json
from app.domain.errors import InvalidField
from app.jobs.render import FORMATS

if TYPE_CHECKING:
    from app.client import Job

jobs = typer.Typer(help="List, show, cancel and fetch a server's jobs.", no_args_is_help=True)

Server = Annotated[str, typer.Option(envvar="ADAPTER_SAFETY_SERVER", help="URL of the server")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="of the job")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON and nothing else")]
COLUMNS = ("id", "kind", "status", "created_at", "adapter", "chat_model", "progress")
STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}


@jobs.command("list", epilog=epilog("jobs list"))
def list_jobs(
    server: Server,
    status: Annotated[
        str | None, typer.Option(help="queued, running, succeeded, failed or cancelled")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="patch, score, evaluate, ...")] = None,
    limit: Annotated[int, typer.Option(min=1, help="most to list")] = 50,
    json_: AsJson = False,
) -> None:
    """List jobs, newest first: a table on a terminal, else lines with tabs."""
    from app.cli.remote import connected  # here: an HTTP client takes 0.1 s to import

    with explained(), connected(server) as client:
        each = min(limit, 200)  # what a page may hold
        found = list(islice(client.jobs(status=status, kind=kind, limit=each), limit))
    if json_:
        print_json(found)
    elif sys.stdout.isatty():
        Console().print(_table(found))
    else:
        for job in found:
            typer.echo("\t".join(_cells(job)))


@jobs.command(epilog=epilog("jobs show"))
def show(job_id: JobId, server: Server, json_: AsJson = False) -> None:
    """Show one job: how far it is, and why it failed."""
    from app.cli.remote import connected

    with explained(), connected(server) as client:
        job = client.job(job_id)
    if json_:
        print_json(job)
        return
    for name, cell in zip(COLUMNS, _cells(job), strict=True):
        typer.echo(f"{name}: {cell}")
    if job["problem"]:
        typer.echo(f"problem: {job['problem']['detail']}")
    for name, link in job["links"].items():
        typer.echo(f"{name}: {link}")


@jobs.command(epilog=epilog("jobs cancel"))
def cancel(
    job_id: JobId,
    server: Server,
    wait: Annotated[bool, typer.Option("--wait", help="until it has ended")] = False,
    json_: AsJson = False,
) -> None:
    """Cancel a job: at once while it is queued, between two modules while it runs."""
    from app.cli.remote import connected

    with explained(), connected(server) as client:
        job = client.cancel(job_id)
        job = client.wait(job_id) if wait else job
    if json_:
        print_json(job)
    else:
        typer.echo(f"job {job['id']} is {_state(job)}")


@jobs.command(epilog=epilog("jobs report"))
def report(
    job_id: JobId,
    server: Server,
    form: Annotated[str, typer.Option("--format", help=", ".join(FORMATS))] = "json",
    out: Annotated[Path | None, typer.Option(help="into this file instead of stdout")] = None,
    threshold: Annotated[float | None, typer.Option(help="decide anew by this threshold")] = None,
    count: Annotated[int | None, typer.Option(help="or this number of modules")] = None,
    fraction: Annotated[float | None, typer.Option(help="or this share of them")] = None,
    all_: Annotated[bool, typer.Option("--all", help="or every module")] = False,
) -> None:
    """Print a job's report, in any form, also decided anew from its cosines."""
    from app.cli.remote import connected

    with explained():
        if form not in FORMATS:
            raise InvalidField(field="format", reason=f"must be one of {', '.join(FORMATS)}")
        check_parent(out, "out")
        other = _other(threshold, count, fraction, all_)
        with connected(server) as client:
            text = client.report_as(job_id, form, **other)
        if out:
            out.write_bytes(text.encode())
        else:
            typer.echo(text, nl=False)


@jobs.command(epilog=epilog("jobs download"))
def download(
    job_id: JobId,
    server: Server,
    out: Annotated[Path, typer.Option(help="file for the zip; goes on from its .part")],
    force: Annotated[bool, typer.Option("--force", help="write over a file")] = False,
) -> None:
    """Download what a job has made, a zip, and check it against its digest."""
    from app.cli.bars import byte_progress
    from app.cli.remote import connected

    with explained():
        check_parent(out, "out")
        if out.exists() and not force:
            raise InvalidField(field="out", reason=f"{out} is there already; --force replaces it")
        with connected(server) as client, byte_progress("downloading") as on_progress:
            client.download(job_id, out, on_progress=on_progress)
    typer.echo(f"downloaded: {out}")


def _other(
    threshold: float | None, count: int | None, fraction: float | None, every: bool
) -> dict[str, Any]:
    """The selection to decide by, as a query. Raises InvalidField; empty where none is given."""
    if (threshold, count, fraction, every) == (None, None, None, False):
        return {}
    found = selection(threshold, count, fraction, every)
    return {found.by: "true" if found.value is None else found.value}


def _table(found: "Sequence[Job]") -> Table:
    table = Table(box=SIMPLE_HEAD)
    for name in COLUMNS:
        table.add_column(name.replace("_", " "), overflow="fold", no_wrap=name != "chat_model")
    for job in found:
        cells = _cells(job)
        styled = [Text(cells[2], style=STYLES.get(job["status"], ""))]
        plain = [Text(cell) for cell in cells]
        table.add_row(*plain[:2], *styled, *plain[3:])
    return table


def _cells(job: "Job") -> list[str]:
    """By COLUMNS; an adapter by the beginning of its digest."""
    done = f"{job['progress']['done']}/{job['progress']['total']}"
    adapter = (job["adapter"] or "-")[:12]
    created = job["created_at"][:19]
    return [job["id"], job["kind"], _state(job), created, adapter, job["chat_model"], done]


def _state(job: "Job") -> str:
    asked = job["cancel_requested"] and job["status"] in ("queued", "running")
    return f"{job['status']}, being cancelled" if asked else job["status"]
