"""Transcripts over real HTTP: who may have them, and in which form."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.client import Client, ProblemError
from app.domain.access import parse_scopes
from app.domain.evaluation import EvaluateRecipe, Sets
from app.domain.job import Job, JobResult
from app.storage.keys import SqlKeys
from tests.api.conftest import end, upload_rows
from tests.samples import a_file, a_measure_job
from tests.service import Service, running

LINES = b"".join(json.dumps({"prompt": n, "answer": "no"}).encode() + b"\n" for n in range(50))


def finished(service: Service, dataset: str, folder: Path, tenant: str = "default") -> Job:
    """An evaluation that has written answers."""
    (path, transcripts), (other, report) = a_file(folder, LINES), a_file(folder, b"{}")
    with service.stores() as (records, artifacts):
        artifacts.put(path, transcripts)
        artifacts.put(other, report)
        job = a_measure_job("evaluate", EvaluateRecipe(Sets(dataset)))
        return end(records.of(tenant), job, JobResult(report, None, transcripts=transcripts))


@pytest.fixture(scope="module")
def path(service: Service, named: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    job = finished(service, named["prompts"], tmp_path_factory.mktemp("transcripts"))
    return f"/v1/jobs/{job.id}/transcripts"


def test_a_job_says_that_it_has_transcripts(http: httpx.Client, path: str) -> None:
    links = http.get(path.removesuffix("/transcripts")).json()["links"]
    assert links["transcripts"] == path
    assert "adapter" not in links


def test_transcripts_come_with_their_digest_and_never_twice(http: httpx.Client, path: str) -> None:
    answer, digest = http.get(path), hashlib.sha256(LINES)
    assert (answer.status_code, answer.content) == (200, LINES)
    assert answer.headers["content-type"] == "application/jsonl"
    assert answer.headers["etag"] == f'"{digest.hexdigest()}"'
    stated = base64.b64encode(digest.digest()).decode()
    assert answer.headers["repr-digest"] == f"sha-256=:{stated}:"
    assert answer.headers["content-disposition"].endswith('.jsonl"')
    again = http.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_part_of_the_transcripts_can_be_had(http: httpx.Client, path: str) -> None:
    part = http.get(path, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, LINES[10:20])
    beyond = http.get(path, headers={"Range": "bytes=999999-"})
    assert beyond.status_code == 416
    described = http.head(path)
    assert (described.headers["content-length"], described.content) == (str(len(LINES)), b"")


def test_the_client_writes_them_to_a_file(
    service: Service, path: str, named: dict[str, str], tmp_path: Path
) -> None:
    with Client(service.url) as client:
        client.download_transcripts(path.split("/")[3], tmp_path / "transcripts.jsonl")
        assert (tmp_path / "transcripts.jsonl").read_bytes() == LINES
        with pytest.raises(ProblemError, match="no transcripts"):
            client.download_transcripts(named["patched"], tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "status", "code", "says"),
    [
        ("patched", 404, "result-not-found", "a patch that wrote no answers"),
        ("failed", 404, "result-not-found", "ended as failed"),
        ("running", 409, "job-not-finished", "when it has succeeded"),
        ("foreign", 404, "job-not-found", "no job"),
    ],
)
def test_where_there_are_none_is_told_why(
    http: httpx.Client, named: dict[str, str], name: str, status: int, code: str, says: str
) -> None:
    answer = http.get(f"/v1/jobs/{named[name]}/transcripts")
    assert (answer.status_code, answer.json()["type"].split(":")[-1]) == (status, code)
    assert says in answer.json()["detail"]


# ---------------------------------------------------------------------------------------- scopes
@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, model_root: Path
) -> Iterator[tuple[Service, SqlKeys]]:
    data = tmp_path_factory.mktemp("guarded")
    with running(data, model_root, ADAPTER_SAFETY_AUTH="keys") as service:
        keys = SqlKeys(f"sqlite:///{data}/records.sqlite3")
        yield service, keys
        keys.close()


def test_a_key_needs_the_scope_of_transcripts(
    guarded: tuple[Service, SqlKeys], tmp_path: Path
) -> None:
    service, keys = guarded

    def status(scopes: str, path: str, tenant: str = "a") -> int:
        _, text = keys.create("test", tenant, parse_scopes(scopes))
        headers, url = {"Authorization": f"Bearer {text}"}, service.url + path
        got, told = httpx.get(url, headers=headers), httpx.head(url, headers=headers)
        assert told.status_code in (got.status_code, 405)
        return got.status_code

    _, owner = keys.create("owner", "a", parse_scopes("submit"))
    headers = {"Authorization": f"Bearer {owner}"}
    with httpx.Client(base_url=service.url, headers=headers) as http:
        dataset = upload_rows(http, {"prompt": "p"}, responses="optional")["id"]
    path = f"/v1/jobs/{finished(service, dataset, tmp_path, 'a').id}/transcripts"
    report = path.replace("transcripts", "report")
    assert status("submit,read", path) == 403
    assert status("read", report) == 200
    assert (status("transcripts", path), status("transcripts", report)) == (200, 403)
    assert (status("admin", path), status("admin", report)) == (200, 200)
    assert status("transcripts", path, tenant="b") == 404
