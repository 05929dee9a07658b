"""The same jobs, done by a server: `--server`."""

import os
import shutil
import tempfile
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import typer

from app.cli.bars import byte_progress, progress
from app.cli.exits import BAD_INPUT, FAILED, INPUT_FAULTS, INTERRUPTED, fail
from app.cli.patch_options import PatchAsked
from app.client import Client, ClientError, Conflict, Job, ProblemError, WaitTimeout
from app.domain.adapter import PATCHED_FILES
from app.domain.errors import InvalidField
from app.intake.model_ids import is_hub_id, parse_model_name

Json = dict[str, Any]

FAULTY_INPUT = {f"urn:adapter-safety:problem:{fault.code}" for fault in INPUT_FAULTS}
API_KEY = "ADAPTER_SAFETY_API_KEY"  # from the environment, because others see a command's arguments
CANCEL_WITHIN_S = 60.0  # a running job ends at its next module


def patch_remotely(server: str, asked: PatchAsked, out: Path) -> Json:
    """Upload, submit, follow, download into `out`; the report. Ends the process on a failure."""
    with connected(server) as client:
        job = finished(client, _body("patch", client, asked), "patching")
        download_patched(client, job["id"], out)
        return client.report(job["id"])


def score_remotely(server: str, asked: PatchAsked) -> Json:
    """Upload, submit, follow; the report. Ends the process on a failure."""
    with connected(server) as client:
        job = finished(client, _body("score", client, asked), "scoring")
        return client.report(job["id"])


def _body(kind: str, client: Client, asked: PatchAsked) -> Json:
    adapter = uploaded(client, asked.adapter)
    return {"kind": kind, "adapter": adapter, **asked.models, "method": asdict(asked.method)}


def uploaded(client: Client, adapter: Path) -> str:
    """The id of a folder or an archive, or of what the server takes from the hub. Raises
    InvalidField."""
    name = str(adapter)
    if not adapter.exists() and is_hub_id(name.partition("@")[0]):
        parsed = parse_model_name(name, field="adapter")
        return client.upload_from_hub(parsed.id, parsed.revision)["id"]
    check_there(adapter)
    with byte_progress("uploading") as on_progress:
        return client.upload(adapter, on_progress=on_progress)["id"]


def check_there(adapter: Path) -> None:
    """Raises InvalidField where there is nothing to upload."""
    if not adapter.exists():
        raise InvalidField(field="adapter", reason=f"there is nothing at {adapter}")


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
    except ClientError as error:
        raise fail(str(error), FAILED) from error
    except httpx.TransportError as error:
        raise fail(f"{server} does not answer: {error}", FAILED) from error


def finished(client: Client, body: Mapping[str, Any], what: str) -> Job:
    """Submit, and follow to the end. Ends the process where the job did not succeed; Ctrl-C
    cancels the job."""
    key = uuid.uuid4().hex
    try:
        job_id = client.submit(body, idempotency_key=key)["id"]
        _follow(client, job_id, what)
        job = client.job(job_id)
    except KeyboardInterrupt:
        raise _interrupted(client, body, key) from None
    if job["status"] != "succeeded":
        problem = job["problem"] or {}
        code = BAD_INPUT if problem.get("type") in FAULTY_INPUT else FAILED
        raise fail(problem.get("detail", f"the job was {job['status']}"), code)
    return job


def _follow(client: Client, job_id: str, what: str) -> None:
    with progress(what) as on_step:
        for event in client.events(job_id):
            if "done" in event.data:
                on_step(event.data["done"], event.data["total"], event.name, event.data)


def _interrupted(client: Client, body: Mapping[str, Any], key: str) -> typer.Exit:
    """Cancel, and wait until it is; a second Ctrl-C does not wait. The key finds the job also where
    its id had not come yet."""
    typer.echo("cancelling the job; Ctrl-C again leaves at once", err=True)
    job_id = "on the server"
    try:
        job_id = client.submit(body, idempotency_key=key)["id"]
        client.cancel(job_id)
        status: str = client.wait(job_id, CANCEL_WITHIN_S)["status"]
    except Conflict:
        status = client.job(job_id)["status"]
    except WaitTimeout:
        status = "being cancelled"
    except KeyboardInterrupt:
        return fail(f"left; job {job_id} may still be there", INTERRUPTED)
    return fail(f"interrupted; job {job_id} is {status}", INTERRUPTED)


def download_patched(client: Client, job_id: str, out: Path) -> None:
    """Into a folder beside `out` first, so that `out` is whole or not there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        archive, unpacked = Path(folder) / "patched.zip", Path(folder) / "patched"
        with byte_progress("downloading") as on_progress:
            client.download(job_id, archive, on_progress=on_progress)
        unpack_patched(archive, unpacked)
        unpacked.replace(out)


def unpack_patched(archive: Path, out: Path) -> None:
    """Unpack the files that a patched adapter has, by their names, and no others."""
    out.mkdir()
    with zipfile.ZipFile(archive) as packed:
        for name in PATCHED_FILES:
            with packed.open(name) as source, (out / name).open("wb") as target:
                shutil.copyfileobj(source, target)
