"""`adapter-safety demo`: the main job on a tiny world, through the real API, queue and worker."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.exits import FAILED, fail
from app.cli.tables import print_report
from app.imports import lasting_imports

READY = "adapter-safety is ready at "
if TYPE_CHECKING:
    from app.client import Client, Job

STOP_WITHIN_S = 60.0


def demo(
    out: Annotated[Path, typer.Option(help="folder for everything the demo makes")] = Path(
        "demo-output"
    ),
    safety: Annotated[
        bool, typer.Option("--safety", help="measure refusals and skill in a small world instead")
    ] = False,
    seed: Annotated[int, typer.Option(help="of that world")] = 0,
    cache: Annotated[
        Path | None, typer.Option(help="folder of worlds that are made [in the demo's folder]")
    ] = None,
) -> None:
    """Make a tiny base, chat and adapter, patch it through the real service, prove the result.

    With --safety: in a small world whose chat model has learnt to refuse, every way to patch two
    adapters, measured side by side; some minutes.
    """
    if safety:
        with lasting_imports():
            from app.cli.demo_safety import demo_safety  # here, as below

        demo_safety(out, seed, cache)
        return
    out.mkdir(parents=True, exist_ok=True)
    data = out.absolute() / "data"
    # here, because these import torch, transformers, peft and an HTTP client
    with lasting_imports():
        from app.client import Client
        from app.demo.world import make_world

    typer.echo("1/4 training a tiny base model, a chat model and a LoRA adapter")
    world = make_world(data / "models" / "demo", out / "adapter")
    typer.echo("2/4 starting API, worker and broker")
    with _service(data) as url, Client(url) as client:
        typer.echo(f"3/4 uploading and patching at {url}")
        job = _patch(client, world.adapter)
        report = client.report(job["id"])
        archive = out / "patched.zip"
        client.download(job["id"], archive)
    typer.echo("4/4 loading the result with PEFT and checking it against the formula")
    patched = _unpacked(archive, out / "patched")
    _prove(world, patched, report)
    print_report(report)
    _say_where(world.adapter, patched, archive)


def _patch(client: "Client", adapter: Path) -> "Job":
    """Submit with half of the modules selected, and follow to the end."""
    uploaded = client.upload(adapter)
    select = {"by": "count", "value": len(uploaded["modules"]) // 2}
    method = {"name": "safe_lora", "projector": "approximate", "select": select}
    models = {"base_model": "demo/base", "chat_model": "demo/chat"}
    job = client.submit({"kind": "patch", "adapter": uploaded["id"], **models, "method": method})
    for event in client.events(job["id"]):
        if event.name == "module":
            typer.echo(f"    {event.data['done']}/{event.data['total']} {event.data['module']}")
    job = client.job(job["id"])
    if job["status"] != "succeeded":
        raise fail(f"the job ended as {job['status']}: {job['problem']}", FAILED)
    return job


@contextmanager
def _service(data: Path) -> Iterator[str]:
    """`adapter-safety up` on a free port; its base URL. Stopped afterwards."""
    command = [sys.executable, "-c", "from app.cli import main; main()", "up", "--port", "0"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ADAPTER_SAFETY_")}
    environment = {**kept, "ADAPTER_SAFETY_DATA_DIR": str(data)}
    process = subprocess.Popen(  # noqa: S603 because the command is our own
        command, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield _ready_url(process)
    finally:
        process.terminate()
        process.communicate(timeout=STOP_WITHIN_S)


def _ready_url(process: "subprocess.Popen[str]") -> str:
    for line in process.stdout or ():
        if line.startswith(READY):
            return line.removeprefix(READY).split()[0]
    raise fail("the service did not start; its own message is above", FAILED)


def _unpacked(archive: Path, folder: Path) -> Path:
    """The patched adapter, in place of an earlier demo's."""
    shutil.rmtree(folder, ignore_errors=True)
    from app.cli.remote import unpack_patched

    unpack_patched(archive, folder)
    return folder


def _prove(world: Any, patched: Path, report: dict[str, Any]) -> None:
    from app.demo.proof import ProofFailed, check_patched

    try:
        check_patched(world, patched, report)
    except ProofFailed as error:
        raise fail(f"the result is wrong at {error}", FAILED) from error


def _say_where(adapter: Path, patched: Path, archive: Path) -> None:
    typer.echo(
        "PEFT loads the patched adapter; projected modules equal C B, the others are as sent"
    )
    typer.echo(f"original adapter: {adapter.absolute()}")
    typer.echo(f"patched adapter:  {patched.absolute()}")
    typer.echo(f"archive:          {archive.absolute()}")
    typer.echo(f"report:           {(patched / 'safety_report.json').absolute()}")
