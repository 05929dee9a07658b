"""Verdicts as they are listed, exported and retried, on SQLite and PostgreSQL."""

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.domain.verdict import Push
from app.jobs.verdict_ports import VerdictFilter
from app.jobs.verdict_table import COLUMNS
from tests.moderation.bench import REPO, Bench


def push(number: int, repo: str = REPO) -> Push:
    return Push("hook", repo.replace("/", "-"), repo, "refs/heads/main", f"{number:040x}")


def receive(bench: Bench, count: int, tenant: str = "default", **of: Any) -> list[str]:
    found = bench.services.verdicts.of(tenant)
    return [found.receive(push(number, **of))[0].id for number in range(count)]


def ids(bench: Bench, **query: Any) -> list[str]:
    answer = bench.http.get("/v1/verdicts", params=query)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_verdicts_are_paged_newest_first(bench: Bench) -> None:
    made = receive(bench, 5)
    first = bench.http.get("/v1/verdicts", params={"limit": 2}).json()
    seen, cursor = [item["id"] for item in first["items"]], first["next_cursor"]
    while cursor:
        page = bench.http.get("/v1/verdicts", params={"limit": 2, "cursor": cursor}).json()
        seen, cursor = seen + [item["id"] for item in page["items"]], page["next_cursor"]
    assert seen == made[::-1]


def test_verdicts_are_filtered(bench: Bench, stranger: Path) -> None:
    done = bench.settled(stranger)
    (other,) = receive(bench, 1, repo="acme/other")
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    assert ids(bench, repo="acme/other") == [other]
    assert ids(bench, verdict="inconclusive") == [done.id]
    assert ids(bench, verdict="pass") == []
    assert ids(bench, state="received") == [other]
    assert ids(bench, since=(now - hour).isoformat()) == [other, done.id]
    assert ids(bench, since=(now + hour).isoformat()) == []
    assert ids(bench, until=(now - hour).isoformat()) == []
    assert ids(bench, state="done", repo=REPO) == [done.id]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"since": "2026-01-01T00:00:00"}, "since"),
        ({"until": "0001-01-01T00:00:00+14:00"}, "until"),
        ({"repo": "a\x00b"}, "repo"),
        ({"verdict": "safe"}, "verdict"),
        ({"cursor": "x"}, "cursor"),
        ({"format": "pdf"}, "format"),
    ],
    ids=str,
)
def test_a_filter_that_cannot_be_read_is_refused(
    bench: Bench, query: dict[str, str], field: str
) -> None:
    answer = bench.http.get("/v1/verdicts", params=query)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_the_export_has_every_row_and_no_formula(bench: Bench, stranger: Path) -> None:
    done = bench.settled(stranger)
    made = receive(bench, 205, repo="acme/other")
    answer = bench.http.get("/v1/verdicts", headers={"Accept": "text/csv"}, params={"limit": 3})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["id"] for row in rows] == [*made[::-1], done.id]
    assert tuple(rows[0]) == COLUMNS
    assert rows[-1]["base_model_name_or_path"].startswith("'=evil/@everyone")
    assert not any(value.startswith(("=", "+", "-", "@")) for value in rows[-1].values())


def test_a_tenant_sees_its_own_alone(bench: Bench) -> None:
    (theirs,) = receive(bench, 1, tenant="another")
    (own,) = receive(bench, 1, repo="acme/other")
    assert ids(bench) == [own]
    assert bench.http.get(f"/v1/verdicts/{theirs}").status_code == 404
    assert bench.http.post(f"/v1/verdicts/{theirs}/retry").status_code == 404
    found = bench.services.verdicts.of("another")
    assert [v.id for v in found.verdicts(VerdictFilter(), limit=9, cursor=None).items] == [theirs]


@pytest.mark.parametrize("name", ["nothing", "a%00b", "%F0%9F%98%80"])
def test_what_is_no_verdict_is_not_found(bench: Bench, name: str) -> None:
    answer = bench.http.get(f"/v1/verdicts/{name}")
    assert (answer.status_code, answer.json()["title"]) == (404, "No such verdict")
    assert bench.http.post(f"/v1/verdicts/{name}/retry").status_code == 404


def test_a_verdict_under_way_is_not_to_be_retried(bench: Bench) -> None:
    (own,) = receive(bench, 1)
    answer = bench.http.post(f"/v1/verdicts/{own}/retry")
    assert answer.status_code == 409
    assert answer.json()["state"] == "received"


def test_another_tenants_policy_is_not_shown(bench: Bench) -> None:
    assert bench.http.get("/v1/policy").json()["tenant"] == "default"
    bench.write_policy(tenant="another")
    assert bench.http.get("/v1/policy").status_code == 404
