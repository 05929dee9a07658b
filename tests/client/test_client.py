"""Both clients against a service as a user starts it, also where connections break."""

import hashlib
import inspect
import re
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.alignment_schemas import PairOut
from app.api.hub_imports import ImportedAdapterOut
from app.api.job_schemas import JobOut
from app.api.salora_schemas import DatasetOut
from app.api.schemas import AdapterOut, AdapterSummaryOut, ModuleOut
from app.client import (
    Adapter,
    AdapterSummary,
    Alignment,
    AsyncClient,
    Client,
    Conflict,
    Dataset,
    DigestMismatch,
    ImportedAdapter,
    Job,
    Module,
    NotFound,
    Patience,
    ProblemError,
    Refused,
    WaitTimeout,
)
from tests.client.both import CLIENTS
from tests.client.cutting import proxied
from tests.factory import World
from tests.service import Service

pytestmark = [
    pytest.mark.parametrize("service", ["SQLite and a folder"], indirect=True),
]
both = pytest.mark.parametrize("kind", CLIENTS, ids=["blocking", "awaiting"])
BODY = {"kind": "patch", "base_model": "base", "chat_model": "chat"}
ALL = {"method": {"select": {"by": "all"}}}
QUICK = Patience(tries=3, longest_s=5)


@pytest.fixture(scope="module")
def done(service: Service, llama_world: World) -> Job:
    with Client(service.url) as client:
        adapter = client.upload(llama_world.adapter)["id"]
        return client.wait(client.submit({**BODY, **ALL, "adapter": adapter})["id"])


@both
def test_from_an_upload_to_a_checked_download(
    kind: Any, service: Service, llama_world: World, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    with kind(service.url) as client:
        adapter = client.upload(llama_world.adapter, on_progress=lambda *at: told.append(at))
        assert told[-1][0] == told[-1][1] == adapter["size_bytes"]
        job = client.submit({**BODY, "adapter": adapter["id"]}, idempotency_key=f"{kind}")
        again = client.submit({**BODY, "adapter": adapter["id"]}, idempotency_key=f"{kind}")
        assert again["id"] == job["id"]
        ended = client.wait(job["id"], timeout_s=60)
        assert ended["status"] == "succeeded"
        told.clear()
        client.download(job["id"], tmp_path / "p.zip", on_progress=lambda *at: told.append(at))
        assert client.report(job["id"])["adapter"]["id"] == adapter["id"]
    assert told[-1][0] == told[-1][1] == (tmp_path / "p.zip").stat().st_size
    assert "safety_report.json" in zipfile.ZipFile(tmp_path / "p.zip").namelist()
    assert [path.name for path in tmp_path.iterdir()] == ["p.zip"]


@both
@pytest.mark.parametrize("form", ["json", "csv", "markdown", "html", "sarif"])
def test_a_report_comes_in_every_form_and_decided_anew(
    kind: Any, service: Service, done: Job, form: str
) -> None:
    with kind(service.url) as client:
        text, anew = client.report_as(done["id"], form), client.report_as(done["id"], form, count=1)
    assert "model.layers.1.self_attn.v_proj" in text
    assert anew != text


@both
def test_an_archive_and_a_data_set_go_up_as_well(
    kind: Any, service: Service, llama_world: World, tmp_path: Path
) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in llama_world.adapter.iterdir():
            packed.write(path, path.name)
    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "how"}\n')
    with kind(service.url) as client:
        assert client.upload(archive)["id"] == client.upload(llama_world.adapter)["id"]
        dataset = client.upload_dataset(data, responses="optional")
        assert dataset["id"] in {each["id"] for each in client.datasets()}
        with pytest.raises(Refused) as refused:
            client.upload_dataset(data)
    assert (refused.value.status, refused.value.problem["line"]) == (422, 1)


@both
def test_listings_go_page_after_page(kind: Any, service: Service, done: Job) -> None:
    with kind(service.url) as client:
        for _ in range(3):
            client.submit({**BODY, "adapter": done["adapter"], "kind": "score"})
        paged = [job["id"] for job in client.jobs(kind="score", limit=2)]
        assert paged == [job["id"] for job in client.jobs(kind="score", limit=200)]
        assert len(paged) >= 3
        assert done["adapter"] in {each["id"] for each in client.adapters(limit=1)}
        assert any(pair["chat_model"]["id"] == "chat" for pair in client.alignments())
        for job_id in paged:
            client.wait(job_id)


@both
def test_a_problem_is_an_exception_of_its_family_that_carries_it(
    kind: Any, service: Service, done: Job
) -> None:
    with kind(service.url) as client:
        with pytest.raises(NotFound) as missing:
            client.job("no/../such")
        with pytest.raises(Conflict) as ended:
            client.cancel(done["id"])
        with pytest.raises(Refused) as refused:
            client.submit({**BODY, "adapter": done["adapter"], "chat_model": "none"})
        with pytest.raises(NotFound):
            client.download("none", Path("never"))
        with pytest.raises(NotFound):
            list(client.events("none"))
    assert missing.value.status == 404
    assert ended.value.type == "urn:adapter-safety:problem:job-already-finished"
    assert refused.value.problem["model"] == "none"
    assert not list(Path().glob("never*"))


@both
def test_a_service_without_a_hub_says_so(kind: Any, service: Service) -> None:
    with kind(service.url) as client, pytest.raises(ProblemError):
        client.upload_from_hub("org/none", "main")


@both
def test_waiting_ends_in_time_and_says_how_the_job_is(kind: Any, service: Service) -> None:
    """Of a job that nobody does: its record alone is there."""
    from tests.samples import a_kept_job

    with service.stores() as (records, _):
        job = a_kept_job(records)
    with kind(service.url) as client:
        with pytest.raises(WaitTimeout) as late:
            client.wait(job.id, timeout_s=0.3)
        assert late.value.job["status"] == "queued"
        assert client.cancel(job.id)["status"] == "cancelled"


@both
def test_events_go_on_where_the_connection_was_cut(kind: Any, service: Service, done: Job) -> None:
    with kind(service.url) as client:
        whole = list(client.events(done["id"]))
    with proxied(service.url, 500, 700, 0, 900) as (url, proxy), kind(url) as client:
        cut = list(client.events(done["id"]))
        assert proxy.connections >= 4
        assert b"last-event-id" in bytes(proxy.asked).lower()
    assert cut == whole
    assert [event.name for event in whole][-1] == "succeeded"


@both
def test_events_may_begin_after_one_that_was_seen(kind: Any, service: Service, done: Job) -> None:
    with kind(service.url) as client:
        whole = list(client.events(done["id"]))
        assert list(client.events(done["id"], after=whole[2].id)) == whole[3:]
        (last,) = client.events(done["id"], after=whole[-1].id)  # 204: the record has the word
    assert last.name == "succeeded"


@both
def test_a_download_that_is_cut_again_and_again_arrives_whole(
    kind: Any, service: Service, done: Job, tmp_path: Path
) -> None:
    with kind(service.url) as client:
        client.download(done["id"], tmp_path / "whole.zip")
    size = (tmp_path / "whole.zip").stat().st_size
    with proxied(service.url, size // 3, size // 3, 40) as (url, proxy), kind(url) as client:
        client.download(done["id"], tmp_path / "cut.zip")
        asked = bytes(proxy.asked).lower()
    assert asked.count(b"range: bytes=") == asked.count(b"if-range:") == 3
    assert proxy.connections == 4
    assert (tmp_path / "cut.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.zip", "whole.zip"]


@both
def test_another_process_goes_on_from_a_part_and_not_from_one_of_something_else(
    kind: Any, service: Service, done: Job, tmp_path: Path
) -> None:
    target, part = tmp_path / "p.zip", tmp_path / "p.zip.part"
    with kind(service.url) as client:
        client.download(done["id"], target)
    whole = target.read_bytes()
    target.unlink()
    give_up = Patience(tries=0)
    with (
        proxied(service.url, len(whole) // 2) as (url, _),
        kind(url, patience=give_up) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.download(done["id"], target)
    come = part.stat().st_size
    assert 0 < come < len(whole)
    assert not target.exists()
    with proxied(service.url) as (url, proxy), kind(url) as client:
        client.download(done["id"], target)
        assert f"range: bytes={come}-".encode() in bytes(proxy.asked).lower()
    assert target.read_bytes() == whole
    part.write_bytes(b"of another file")
    (tmp_path / "p.zip.part.etag").write_text('"another"')
    with kind(service.url) as client:
        client.download(done["id"], target)
    assert target.read_bytes() == whole
    part.write_bytes(whole)
    (tmp_path / "p.zip.part.etag").write_text(f'"{hashlib.sha256(whole).hexdigest()}"')
    with kind(service.url) as client:
        client.download(done["id"], target)  # nothing is left to send: 416
    assert [path.name for path in tmp_path.iterdir()] == ["p.zip"]
    assert target.read_bytes() == whole


@both
@pytest.mark.parametrize("flip", [b"safety_report.json", b"repr-digest"])
def test_bytes_that_are_not_what_the_digest_tells_are_thrown_away(
    kind: Any, service: Service, done: Job, tmp_path: Path, flip: bytes
) -> None:
    with (
        proxied(service.url, flip=flip) as (url, _),
        kind(url) as client,
        pytest.raises(DigestMismatch) as wrong,
    ):
        client.download(done["id"], tmp_path / "p.zip")
    assert wrong.value.found in str(wrong.value)
    assert list(tmp_path.iterdir()) == []


@both
def test_a_service_that_is_not_there_is_said_at_once(kind: Any, service: Service) -> None:
    with kind("http://127.0.0.1:9", patience=QUICK) as client:
        with pytest.raises(httpx.TransportError):
            client.job("any")
        with pytest.raises(httpx.TransportError):
            client.submit({})


def test_what_the_answers_are_typed_as_is_what_the_service_sends(service: Service) -> None:
    pairs: list[tuple[Any, Any]] = [
        (Job, JobOut),
        (Adapter, AdapterOut),
        (ImportedAdapter, ImportedAdapterOut),
        (AdapterSummary, AdapterSummaryOut),
        (Module, ModuleOut),
        (Dataset, DatasetOut),
        (Alignment, PairOut),
    ]
    for typed, model in pairs:
        assert _all_keys(typed) == model.model_fields.keys(), typed


def _all_keys(typed: Any) -> set[str]:
    return set(typed.__required_keys__) | set(typed.__optional_keys__)


def test_both_clients_have_the_same_methods_with_the_same_parameters(service: Service) -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_") and name != "close":
            other = getattr(AsyncClient, name)
            assert inspect.signature(other).parameters == inspect.signature(method).parameters
            assert other.__doc__ == method.__doc__


def test_the_plans_do_no_io(service: Service) -> None:
    """The plans do no I/O, so that neither client can go its own way."""
    folder = Path(inspect.getfile(Client)).parent
    for name in ("plans", "events", "patience", "problems", "answers"):
        text = (folder / f"{name}.py").read_text()
        assert not re.search(r"\b(sleep|open|stream|asyncio)\(", text), name
