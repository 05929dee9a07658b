"""The same jobs, done by a server: `--server`."""

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

from app.cli.bars import progress
from app.cli.exits import BAD_INPUT, FAILED, INPUT_FAULTS, fail
from app.client import Client, ClientError, Job, ProblemError
from app.domain.adapter import PATCHED_FILES
from app.domain.errors import InvalidField
from app.domain.method import Method

FAULTY_INPUT = {f"urn:adapter-safety:problem:{fault.code}" for fault in INPUT_FAULTS}
API_KEY = "ADAPTER_SAFETY_API_KEY"  # from the environment, because others see a command's arguments


def patch_remotely(
    server: str, adapter: Path, models: Mapping[str, str], method: Method, out: Path
) -> dict[str, Any]:
    """Upload, submit, follow, download into `out`; the report. Ends the process on a failure."""
    check_there(adapter)
    with connected(server) as client:
        uploaded = client.upload(adapter)["id"]
        body = {"kind": "patch", "adapter": uploaded, **models, "method": asdict(method)}
        job = finished(client, body, "patching")
        download_patched(client, job["id"], out)
        return client.report(job["id"])


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
    """Submit, and follow to the end. Ends the process where the job did not succeed."""
    job = client.submit(body)
    with progress(what) as on_step:
        for event in client.events(job["id"]):
            if "done" in event.data:
                on_step(event.data["done"], event.data["total"], event.name, event.data)
    job = client.job(job["id"])
    if job["status"] != "succeeded":
        problem = job["problem"] or {}
        code = BAD_INPUT if problem.get("type") in FAULTY_INPUT else FAILED
        raise fail(problem.get("detail", f"the job was {job['status']}"), code)
    return job


def download_patched(client: Client, job_id: str, out: Path) -> None:
    """Into a folder beside `out` first, so that `out` is whole or not there."""
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
