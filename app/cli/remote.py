"""`adapter-safety patch --server`: the same job, done by a server."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import Progress

from app.cli.exits import BAD_INPUT, FAILED, fail
from app.client import Client, ProblemError
from app.domain.adapter import PATCHED_FILES
from app.domain.errors import InvalidField
from app.domain.method import Method

API_KEY = "ADAPTER_SAFETY_API_KEY"  # from the environment, because others see a command's arguments


def patch_remotely(
    server: str, adapter: Path, models: Mapping[str, str], method: Method, out: Path
) -> dict[str, Any]:
    """Upload, submit, follow, download into `out`; the report. Ends the process on a failure."""
    if not adapter.exists():
        raise InvalidField(field="adapter", reason=f"there is nothing at {adapter}")
    with connected(server) as client:
        job = _finished(client, adapter, models, method)
        if job["status"] != "succeeded":
            detail = (job["problem"] or {}).get("detail", f"the job was {job['status']}")
            raise fail(detail, FAILED)
        _download(client, job["id"], out)
        return client.report(job["id"])


@contextmanager
def connected(server: str) -> Iterator[Client]:
    """What the server answers, or that it does not, ends the process with a sentence."""
    try:
        with Client(server, api_key=os.environ.get(API_KEY)) as client:
            yield client
    except ProblemError as error:
        raise fail(str(error), BAD_INPUT if 400 <= error.status < 500 else FAILED) from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise fail(f"--server {server}: {error}", BAD_INPUT) from error
    except httpx.TransportError as error:
        raise fail(f"{server} does not answer: {error}", FAILED) from error


def _finished(
    client: Client, adapter: Path, models: Mapping[str, str], method: Method
) -> dict[str, Any]:
    uploaded = client.upload(adapter)
    job = client.submit(
        {"kind": "patch", "adapter": uploaded["id"], **models, "method": asdict(method)}
    )
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("patching", total=len(uploaded["modules"]))
        for event in client.events(job["id"]):
            bar.update(task, completed=event.data.get("done"))
    return client.job(job["id"])


def _download(client: Client, job_id: str, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        archive, unpacked = Path(folder) / "patched.zip", Path(folder) / "patched"
        client.download(job_id, archive)
        unpack_patched(archive, unpacked)
        unpacked.replace(out)


def unpack_patched(archive: Path, out: Path) -> None:
    """Unpack the files that a patched adapter has, by their names, and no others."""
    out.mkdir()
    with zipfile.ZipFile(archive) as packed:
        for name in PATCHED_FILES:
            with packed.open(name) as source, (out / name).open("wb") as target:
                shutil.copyfileobj(source, target)
