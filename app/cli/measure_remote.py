"""`adapter-safety evaluate` and `frontier --server`: the same jobs, done by a server."""

from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any

import typer

from app.cli.evaluate import EvaluateAsked
from app.cli.folders import new_folder
from app.cli.frontier import TRANSCRIPTS_FILE, FrontierAsked
from app.cli.measure_options import DataFiles, judging_body
from app.cli.remote import connected, download_patched, finished, uploaded
from app.cli.report_files import write_forms
from app.client import Client, ProblemError

Json = dict[str, Any]


def evaluate_remotely(server: str, asked: EvaluateAsked, transcripts: Path | None) -> Json:
    """Upload, submit, follow; the report. Ends the process on a failure."""
    with connected(server) as client:
        adapters = [
            {"name": each.name, "adapter": uploaded(client, each.path)} for each in asked.adapters
        ]
        sets, judging = _data_sets(client, asked.files), judging_body(asked.recipe.judging)
        body = {"chat_model": asked.chat, "adapters": adapters, **sets, **judging}
        job = finished(client, {"kind": "evaluate", **body}, "measuring")
        if transcripts:
            client.download_transcripts(job["id"], transcripts)
        return client.report(job["id"])


def frontier_remotely(server: str, asked: FrontierAsked, out: Path) -> Json:
    """The same, and what is wanted is patched there; `out` gets what a local search writes."""
    with connected(server) as client, new_folder(out) as work:
        job = finished(client, _frontier_body(client, asked), "searching")
        report = client.report(job["id"])
        write_forms(report, work)
        _download_transcripts(client, job["id"], work / TRANSCRIPTS_FILE)
        wanted = asked.wanted(report)
        if wanted is not None:
            _download_adapter(client, wanted, work)
    return report


def _frontier_body(client: Client, asked: FrontierAsked) -> Json:
    recipe = asked.recipe
    held_out = _data_sets(client, asked.held_out)
    return {
        "kind": "frontier",
        "adapter": uploaded(client, asked.adapter),
        "base_model": asked.base_model,
        "chat_model": asked.chat_model,
        **_data_sets(client, asked.files),
        "held_out": held_out or None,
        "families": recipe.families,
        "energy": recipe.energy,
        "safety_module": recipe.safety_module,
        "constraints": asdict(recipe.constraints),
        "budget": asdict(recipe.budget),
        "seed": recipe.seed,
        **_without(judging_body(recipe.judging), "guard_model"),
    }


def _without(body: Json, name: str) -> Json:
    return {key: value for key, value in body.items() if key != name}


def _download_transcripts(client: Client, job_id: str, path: Path) -> None:
    """A key that may not read them gets everything else."""
    try:
        client.download_transcripts(job_id, path)
    except ProblemError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        typer.echo(f"no transcripts: {error}", err=True)


def _download_adapter(client: Client, body: Mapping[str, Any], work: Path) -> None:
    job = finished(client, body, "patching")
    patched = work / "patched"
    download_patched(client, job["id"], patched)
    for path in patched.iterdir():
        path.replace(work / path.name)
    patched.rmdir()


def _data_sets(client: Client, files: DataFiles) -> Json:
    """Data sets' ids by role. Of the task every row needs a response."""
    return {
        role: client.upload_dataset(path, responses="required" if role == "task" else "optional")[
            "id"
        ]
        for role, path in files.by_role.items()
    }
