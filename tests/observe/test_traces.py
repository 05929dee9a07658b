"""Traces where they are off, where the extra is missing, and where jobs go together."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

from app.domain.job import Job
from app.jobs.held import Held
from app.jobs.run import Desk, run_job
from app.observe import traces
from app.storage.events import RedisEvents
from app.storage.records import SqlRecords
from tests.jobs.test_run import RESULT, ListQueue
from tests.observe.receiver import receiving
from tests.samples import a_job, an_adapter

TRACES = [f"{number:032x}" for number in (1, 2)]
WITHOUT = """
import sys
sys.modules["opentelemetry.sdk"] = None
from app.main import create_app
create_app()
"""
WORKER = """
import sys
sys.modules["opentelemetry.sdk"] = None
import workers.celery_app
"""
OFF = """
import sys
from app.main import create_app
create_app()
assert not {"app.observe.otel", "opentelemetry.exporter"} & set(sys.modules)
"""


def run(code: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)


def test_nothing_that_sends_is_imported_where_it_is_off() -> None:
    done = run(OFF)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", [WITHOUT, WORKER])
def test_a_missing_extra_is_said_at_the_start(code: str) -> None:
    done = run(code, ADAPTER_SAFETY_TRACES="true")
    assert done.returncode == 1
    assert "install adapter-safety with the extra `otel`" in done.stderr


def test_an_error_in_a_span_is_told_by_its_kind_and_not_by_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        from app.observe.otel import OtelTracing

        traces.switch_on(OtelTracing("tests"))
        parent = f"00-{TRACES[0]}-00000000000000aa-01"
        with pytest.raises(OSError), traces.span("fetch", parent=parent):  # noqa: PT011 - its text is what must not be told
            raise OSError("GET https://host/x?token=abc")
        traces.switch_off()
        _, span = receiver.of_trace(TRACES[0])["fetch"]
    assert span.status.message == "OSError"
    assert b"token" not in span.SerializeToString()


def test_a_span_where_traces_are_off_is_nothing() -> None:
    with traces.span("x", module="m") as span:
        span.note("a", 1.0)
        span.fail("b")
        assert traces.traceparent() is None


def test_jobs_that_go_together_keep_a_trace_each_and_link_to_the_first(
    records: SqlRecords, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = two_jobs(records)
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        from app.observe.otel import OtelTracing

        traces.switch_on(OtelTracing("tests"))
        desk = Desk(records, RedisEvents(redis_url), ListQueue(), 60.0, coalesce=2)
        assert run_job(jobs[0].id, work_on_both, desk) == "succeeded"
        traces.switch_off()
        first, second = (receiver.of_trace(trace) for trace in TRACES)
    assert set(first) == {"job patch", "align"}
    assert set(second) == {"job patch"}
    assert [link.trace_id.hex() for link in second["job patch"][1].links] == [TRACES[0]]
    assert not first["job patch"][1].links


def two_jobs(records: SqlRecords) -> list[Job]:
    adapter = an_adapter(base_model_name="org/chat")
    records.add_adapter(adapter)
    parents = [f"00-{trace}-00000000000000aa-01" for trace in TRACES]
    return [records.add_job(a_job(adapter, traceparent=parent), None) for parent in parents]


def work_on_both(held: Sequence[Held]) -> None:
    assert len(held) == 2
    with traces.span("align"):
        for each in held:
            each.succeed(RESULT)
