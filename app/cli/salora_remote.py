"""`adapter-safety salora --server`: the same jobs, done by a server."""

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from app.cli.folders import new_folder
from app.cli.remote import connected, finished, unpack_patched
from app.cli.salora_ids import KIT_CONFIG, kit_id, module_id
from app.client import Client, Job
from app.domain.adapter import REPORT_FILE

Json = dict[str, Any]
SAFETY_MODULE = "safety_module.safetensors"


def make_module(server: str, chat: str, data: Path, settings: Json, out: Path) -> Json:
    with connected(server) as client, new_folder(out) as work:
        dataset = client.upload_dataset(data)["id"]
        body = {"kind": "safety_module", "chat_model": chat, "dataset": dataset, **settings}
        job = finished(client, body, "sweeping")
        client.download_part(job["links"]["safety_module"], work / SAFETY_MODULE)
        return _report(client, job, work)


def init(
    server: str, chat: str, module: Path, data: Path | None, settings: Json, out: Path
) -> Json:
    part = module_id(module)
    with connected(server) as client, new_folder(out) as work:
        dataset = None if data is None else client.upload_dataset(data)["id"]
        body = {"safety_module": part, "dataset": dataset, **settings}
        job = finished(client, {"kind": "salora_init", "chat_model": chat, **body}, "starting")
        archive = work / "kit.zip"
        client.download_part(job["links"]["kit"], archive)
        with ZipFile(archive) as packed:
            packed.extractall(work)
        archive.unlink()
        return client.report(job["id"])


def train(server: str, chat: str, kit: Path, data: Path, settings: Json, out: Path) -> Json:
    part = kit_id(kit)
    with connected(server) as client:
        dataset = client.upload_dataset(data)["id"]
        body = {"chat_model": chat, "kit": part, "dataset": dataset, **settings}
        job = finished(client, {"kind": "salora_train", **body}, "training")
        return _adapter(client, job, out)


def export(server: str, kit: Path, adapter: Path, settings: Json, out: Path) -> Json:
    part = kit_id(kit)
    chat = json.loads((kit / KIT_CONFIG).read_bytes())["chat_model"]["id"]
    with connected(server) as client:
        uploaded = client.upload(adapter)["id"]
        body = {"chat_model": chat, "kit": part, "adapter": uploaded, **settings}
        job = finished(client, {"kind": "salora_export", **body}, "exporting")
        return _adapter(client, job, out)


def _report(client: Client, job: Job, folder: Path) -> Json:
    found = client.report(job["id"])
    (folder / REPORT_FILE).write_text(json.dumps(found, indent=2) + "\n")
    return found


def _adapter(client: Client, job: Job, out: Path) -> Json:
    with new_folder(out) as work:
        archive = work / "adapter.zip"
        client.download(job["id"], archive)
        unpack_patched(archive, work / "adapter")
        archive.unlink()
        for path in (work / "adapter").iterdir():
            path.replace(work / path.name)
        (work / "adapter").rmdir()
    return client.report(job["id"])
