"""What must hold after every fault, whatever it was."""

import json
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from safetensors.torch import load

from app.domain.adapter import REPORT_FILE, WEIGHTS_FILE
from app.domain.job import FINAL, Job
from app.storage.artifacts import CHECK_KEY
from tests.faults.processes import Site, until
from tests.faults.undisturbed import Undisturbed
from tests.reports import assert_alike, wherever_from


def assert_all_is_well(
    site: Site,
    attempts: Mapping[str, int | range],
    undisturbed: Undisturbed,
    faults: Mapping[str, str] | None = None,
) -> None:
    """Each job of `attempts` has ended after that many: those of `faults` failed with that code,
    the others succeeded with what a run without faults gives. Nothing else is left anywhere."""
    expected = faults or {}
    for job in [site.await_end(job_id) for job_id in attempts]:
        assert (job.fault and job.fault.code) == expected.get(job.id)
        assert job.status == ("failed" if job.id in expected else "succeeded")
        allowed = attempts[job.id]
        assert job.attempts in (allowed if isinstance(allowed, range) else (allowed,))
        assert_one_end(site, job)
        if job.status == "succeeded":
            assert_right(site, job, undisturbed)
    assert_nothing_left(site)


def assert_one_end(site: Site, job: Job) -> None:
    """Of the job's events one says how it ended, and it is the last."""
    names = until(lambda: _names_to_the_end(site, job.id), "the end is in the stream", 5)
    assert [name for name in names if name in FINAL] == [job.status]


def _names_to_the_end(site: Site, job_id: str) -> list[str] | None:
    names = [entry["name"] for _, entry in site.broker.xrange(f"adapter-safety:events:{job_id}")]
    return names if names and names[-1] in FINAL else None


def assert_right(site: Site, job: Job, undisturbed: Undisturbed) -> None:
    answer = site.http.get(f"/v1/jobs/{job.id}/adapter")
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(BytesIO(answer.content)) as packed:
        assert packed.testzip() is None
        weights, report = load(packed.read(WEIGHTS_FILE)), json.loads(packed.read(REPORT_FILE))
    expected = undisturbed.weights
    assert weights.keys() == expected.keys()
    assert all(bool((weights[name] == expected[name]).all()) for name in expected)
    assert_alike(wherever_from(report), undisturbed.report)


def assert_nothing_left(site: Site) -> None:
    """No upload, no attempt's scratch folder, and no stored file that no record names."""
    until(lambda: not list(site.staging.iterdir()), f"{site.staging} is empty", 15)
    artifacts = site.data / "artifacts"
    kept = {path.relative_to(artifacts).name for path in artifacts.rglob("*") if path.is_file()}
    assert kept - {CHECK_KEY} == named_by_records(site)


def named_by_records(site: Site) -> set[str]:
    adapters = site.records.adapters(limit=200, cursor=None).items
    files = [file for a in adapters for file in site.records.adapter(a.id).files.values()]
    for job in site.records.jobs(status="succeeded", kind=None, limit=200, cursor=None).items:
        assert job.result
        files += [file for file in (job.result.report, job.result.archive) if file]
    return {file.sha256 for file in files}


def problem(answer: Any) -> dict[str, Any]:
    """The body of an answer that must be a problem."""
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == answer.status_code
    return body


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
