"""Why a part does not answer is for the operator's log, not for whoever asks."""

import logging
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.config import Settings
from app.main import create_app

AWAY = "postgresql+psycopg://nobody:hunter2hunter2@127.0.0.1:1/none"


def test_the_log_has_the_databases_own_words_and_the_answer_has_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(data_dir=tmp_path, database_url=AWAY, auth="none"))
    with caplog.at_level(logging.WARNING, logger="app.api.errors"):
        client = TestClient(app, base_url="http://localhost", client=("127.0.0.1", 1))
        ready, jobs = client.get("/readyz"), client.get("/v1/jobs")
    assert (ready.status_code, ready.json()["parts"]["database"]) == (503, False)
    assert (jobs.status_code, jobs.json()["detail"]) == (503, "database does not answer; try again")
    said = [each.getMessage() for each in caplog.records if "database" in each.getMessage()]
    assert len(said) == 2
    assert all("Connection refused" in each and "hunter2" not in each for each in said)
