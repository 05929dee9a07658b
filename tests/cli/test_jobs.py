"""`adapter-safety jobs`, and what pipelines use of `patch` and `score`."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import program
from app.client import Client, Job
from tests.factory import World, save_adapter
from tests.samples import a_kept_job
from tests.service import Service

pytestmark = pytest.mark.parametrize("service", ["SQLite and a folder"], indirect=True)


def run(service: Service, *arguments: object) -> Result:
    given = [str(part) for part in arguments]
    return CliRunner().invoke(program(), given, env={"ADAPTER_SAFETY_SERVER": service.url})


@pytest.fixture(scope="module")
def done(service: Service, llama_world: World) -> Job:
    with Client(service.url) as client:
        adapter = client.upload(llama_world.adapter)["id"]
        body = {"kind": "patch", "adapter": adapter, "base_model": "base", "chat_model": "chat"}
        return client.wait(client.submit(body)["id"])


@pytest.fixture
def queued(service: Service) -> str:
    """One that nobody does."""
    with service.stores() as (records, _):
        return a_kept_job(records).id


def test_a_listing_is_lines_when_piped_and_json_when_asked(
    service: Service, done: Job, queued: str
) -> None:
    lines = [line.split("\t") for line in run(service, "jobs", "list").stdout.splitlines()]
    states = {cells[0]: cells[2] for cells in lines}
    assert (states[done["id"]], states[queued]) == ("succeeded", "queued")
    assert {len(cells) for cells in lines} == {7}
    listed = run(service, "jobs", "list", "--status", "queued", "--limit", 1, "--json")
    (job,) = json.loads(listed.stdout)
    assert job["status"] == "queued"
    assert run(service, "jobs", "list", "--status", "odd").exit_code == 2


def test_one_job_is_shown_and_cancelled(service: Service, queued: str) -> None:
    assert "status: queued" in run(service, "jobs", "show", queued).stdout
    ended = run(service, "jobs", "cancel", queued, "--wait")
    assert (ended.exit_code, ended.stdout) == (0, f"job {queued} is cancelled\n")
    assert json.loads(run(service, "jobs", "show", queued, "--json").stdout)["id"] == queued
    again = run(service, "jobs", "cancel", queued)
    assert again.exit_code == 2
    assert "already cancelled" in again.stderr
    assert run(service, "jobs", "show", "none").exit_code == 2


@pytest.mark.parametrize("form", ["json", "csv", "markdown", "html", "sarif"])
def test_a_report_comes_in_every_form_to_stdout_or_a_file(
    service: Service, done: Job, tmp_path: Path, form: str
) -> None:
    printed = run(service, "jobs", "report", done["id"], "--format", form)
    sign = "adapter_model.safetensors" if form == "sarif" else "model.layers.1.self_attn.v_proj"
    assert sign in printed.stdout
    file = tmp_path / "report"
    wrote = run(service, "jobs", "report", done["id"], "--format", form, "--out", file)
    assert (wrote.exit_code, wrote.stdout) == (0, "")
    assert file.read_bytes().replace(b"\r\n", b"\n") == printed.stdout_bytes.replace(b"\r\n", b"\n")


def test_a_report_is_decided_anew(service: Service, done: Job) -> None:
    anew = json.loads(run(service, "jobs", "report", done["id"], "--count", 2).stdout)
    assert (anew["what_if"], anew["summary"]["projected"]) == (True, 2)
    all_ = json.loads(run(service, "jobs", "report", done["id"], "--all").stdout)
    assert all_["summary"]["projected"] == 6
    for wrong in (("--count", 1, "--all"), ("--format", "pdf")):
        assert run(service, "jobs", "report", done["id"], *wrong).exit_code == 2


def test_a_download_is_whole_and_writes_over_nothing(
    service: Service, done: Job, queued: str, tmp_path: Path
) -> None:
    out = tmp_path / "patched.zip"
    assert run(service, "jobs", "download", done["id"], "--out", out).exit_code == 0
    assert zipfile.ZipFile(out).testzip() is None
    assert run(service, "jobs", "download", done["id"], "--out", out).exit_code == 2
    assert run(service, "jobs", "download", done["id"], "--out", out, "--force").exit_code == 0
    missing = run(service, "jobs", "download", queued, "--out", tmp_path / "none.zip")
    assert missing.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["patched.zip"]


MODELS = ("--base-model", "base", "--chat-model", "chat")


@pytest.mark.parametrize("remote", [True, False], ids=["by the server", "here"])
def test_json_is_the_report_and_nothing_else(
    service: Service, llama_world: World, tmp_path: Path, remote: bool
) -> None:
    where, models = _where(service, llama_world, remote)
    out = ("--out", tmp_path / "out")
    patched = run(service, "patch", llama_world.adapter, *models, *out, "--json", *where)
    assert patched.exit_code == 0, patched.stderr
    scored = run(service, "score", llama_world.adapter, *models, "--json", *where)
    one, other = json.loads(patched.stdout), json.loads(scored.stdout)
    assert (one["kind"], other["kind"]) == ("patch", "score")
    assert [each["decision"] for each in one["layers"]] == [
        each["decision"] for each in other["layers"]
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _where(service: Service, world: World, remote: bool) -> tuple[Any, Any]:
    if remote:
        return ("--server", service.url), MODELS
    return (), ("--base-model", world.base, "--chat-model", world.chat)


@pytest.mark.parametrize("command", ["patch", "score"])
def test_a_pipeline_fails_on_what_it_names(
    service: Service, llama_world: World, tmp_path: Path, command: str
) -> None:
    def ended(adapter: Path, *more: object) -> Result:
        models = ("--base-model", llama_world.base, "--chat-model", llama_world.chat)
        out = ("--out", tmp_path / f"out-{len(list(tmp_path.iterdir()))}")
        where = out if command == "patch" else ()
        return run(service, command, adapter, *models, *where, *more)

    plain, half = llama_world.adapter, ("--count", 3)
    assert ended(plain, *half, "--fail-on", "review").exit_code == 0
    found = ended(plain, *half, "--fail-on", "review", "--fail-on", "projected")
    assert (found.exit_code, found.stderr) == (1, "fail-on projected: 3 modules are projected\n")
    assert ended(plain, "--count", 0, "--fail-on", "projected").exit_code == 0
    assert ended(plain, "--fail-on", "anything").exit_code == 2
    save_adapter(
        llama_world.chat_model(), tmp_path / "kept", "llama",
        target_modules=["q_proj"], modules_to_save=["lm_head"],
    )  # fmt: skip
    review = ended(tmp_path / "kept", "--fail-on", "review")
    assert review.exit_code == 1
    assert review.stderr.startswith("fail-on review: ")


def test_an_adapter_of_the_hub_is_left_to_the_server(service: Service, tmp_path: Path) -> None:
    """Which has no hub here, and says so; what is neither there nor an id is told at once."""
    asked = run(service, "score", "org/none@main", *MODELS, "--server", service.url)
    assert asked.exit_code in (2, 3)
    assert "there is nothing at" not in asked.stderr
    missing = run(service, "score", tmp_path / "none", *MODELS, "--server", service.url)
    assert (missing.exit_code, "there is nothing at" in missing.stderr) == (2, True)
