"""`adapter-safety gc`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import program
from app.storage import migrate
from app.storage.records import SqlRecords
from tests.samples import a_job, an_adapter


def test_it_says_what_goes_and_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTER_SAFETY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ADAPTER_SAFETY_RESULTS_DAYS", "0.0000001")
    monkeypatch.setenv("ADAPTER_SAFETY_ADAPTERS_DAYS", "0.0000001")
    url = f"sqlite:///{tmp_path}/records.sqlite3"
    migrate.upgrade(url)
    records, adapter = SqlRecords(url), an_adapter()
    records.add_adapter(adapter)
    job = records.add_job(a_job(adapter), None)
    records.request_cancel(job.id)
    records.close()
    said = [
        CliRunner().invoke(program(), ["gc", *option]).output for option in (["--dry-run"], [], [])
    ]
    assert said[0].startswith("would go: jobs 1, adapters 0")
    assert said[1].startswith("gone: jobs 1, adapters 1")
    assert said[2].startswith("gone: jobs 0, adapters 0")
