"""What real processes tell of themselves: logs, figures, one trace, and their health."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.factory import World
from tests.faults.processes import child_of, frozen, until
from tests.observe.conftest import HOOK_SECRET, REQUEST, SILENT_S, TOKEN, TRACE, Observed, submitted
from tests.observe.test_files import SERIES

WITHIN_S = 60.0


# -------------------------------------------------------------------------------------------- logs
def test_every_line_of_api_and_worker_is_one_object_with_the_same_fields(
    observed: Observed,
) -> None:
    for process in ("api", "worker"):
        lines = observed.log(process)
        assert lines
        for line in lines:
            assert {"timestamp", "level", "logger", "message", "process"} <= line.keys(), line
            assert line["process"] == process


def test_uvicorns_and_celerys_lines_are_among_them(observed: Observed) -> None:
    lines = [*observed.log("api"), *observed.log("worker")]
    loggers = {line["logger"] for line in lines}
    assert {"uvicorn.error", "celery.worker.strategy", "celery.app.trace"} <= loggers
    assert "uvicorn.access" not in loggers  # ours has the request id, and leaves the query out


def test_one_request_id_runs_from_the_answer_through_the_worker(observed: Observed) -> None:
    (answered,) = [
        line
        for line in observed.log("api")
        if line["message"] == "answered" and line.get("request_id") == REQUEST
    ]
    assert (answered["route"], answered["status"]) == ("/v1/jobs", 202)
    assert answered["tenant"] == "default"
    own = [line for line in observed.log("api") if line.get("job_id") == observed.job.id]
    assert [(line["message"], line["request_id"]) for line in own] == [("the job is kept", REQUEST)]
    of_worker = [line for line in observed.log("worker") if line.get("request_id") == REQUEST]
    assert {"the job begins"} < {line["message"] for line in of_worker}
    for line in of_worker:
        assert (line["job_id"], line["tenant"], line["attempt"]) == (observed.job.id, "default", 1)


def test_a_line_of_each_module_names_it(observed: Observed) -> None:
    lines = [line for line in observed.log("worker") if line.get("job_id") == observed.job.id]
    modules = [line["module"] for line in lines if "module" in line]
    assert len(modules) == observed.job.modules_total > 1
    assert len(set(modules)) == len(modules)


def test_celerys_own_lines_about_a_task_have_its_jobs_id(observed: Observed) -> None:
    received = [
        line
        for line in observed.log("worker")
        if line["logger"] in ("celery.worker.strategy", "celery.app.trace")
    ]
    assert {line["job_id"] for line in received} == {observed.job.id}  # and of canaries no word


def test_no_secret_is_in_any_log(observed: Observed) -> None:
    observed.site.http.get("/v1/jobs", headers={"Authorization": "Bearer ask_" + "0" * 60})
    observed.site.http.post("/v1/hooks/huggingface", headers={"X-Webhook-Secret": HOOK_SECRET})
    observed.metrics(observed.site.url, "a wrong one")
    text = "".join(path.read_text() for path in observed.site.logs.iterdir())
    for secret in (TOKEN, HOOK_SECRET, "ask_" + "0" * 60, "a wrong one"):
        assert secret not in text


# ----------------------------------------------------------------------------------------- figures
def test_the_worker_has_counted_the_job(observed: Observed) -> None:
    text = observed.metrics(observed.worker_url).text
    prefix, modules = "adapter_safety_worker_", observed.job.modules_total
    kind_and_end = 'kind="patch",outcome="succeeded"'
    assert f"{prefix}job_duration_seconds_count{{{kind_and_end}}} 1.0" in text
    decided = value(text, prefix + "modules_total", decision="projected")
    decided += value(text, prefix + "modules_total", decision="kept")
    assert decided == modules
    assert value(text, prefix + "alignment_lookups_total", result="miss") == modules
    for phase in ("fetch", "read", "align", "save", "store"):
        assert value(text, prefix + "phase_seconds_total", phase=phase) > 0, phase
        assert value(text, prefix + "phase_bytes_total", phase=phase) > 0, phase


def test_the_api_has_counted_requests_by_route_and_jobs_by_state(observed: Observed) -> None:
    observed.site.http.get(f"/v1/jobs/{observed.job.id}")
    text = observed.metrics(observed.site.url).text
    asked = {"method": "GET", "route": "/v1/jobs/{job_id}", "status": "200"}
    found = value(text, "adapter_safety_http_requests_total", **asked)
    assert found >= 1
    assert value(text, "adapter_safety_jobs", kind="patch", status="succeeded") >= 1
    assert observed.job.id not in text
    until(lambda: told(observed, "adapter_safety_workers_ready") == 1, "the worker is told of")


def test_real_processes_expose_what_is_documented_and_nothing_else(observed: Observed) -> None:
    observed.site.http.post("/v1/adapters", files={"config": ("adapter_config.json", b"{}")})
    texts = [observed.metrics(url).text for url in (observed.site.url, observed.worker_url)]
    found = set(re.findall(r"^(\w+)(?= |{)", "\n".join(texts), re.MULTILINE))
    of_device = {"adapter_safety_worker_device_memory_bytes"}  # there may be none
    assert {name for name in found if name.startswith("adapter_")} | of_device == SERIES
    assert all(name.startswith(("adapter_safety_", "process_", "python_")) for name in found)


@pytest.mark.parametrize("token", [None, "a wrong one"])
def test_figures_are_for_who_has_the_token(observed: Observed, token: str | None) -> None:
    for url in (observed.site.url, observed.worker_url):
        assert observed.metrics(url, token).status_code == 401


def told(observed: Observed, name: str) -> float:
    """By the API, which looks every few seconds."""
    return value(observed.metrics(observed.site.url).text, name)


def value(text: str, name: str, **labels: str) -> float:
    said = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
    wanted = f"{name}{{{said}}} " if said else f"{name} "
    (found,) = [line for line in text.splitlines() if line.startswith(wanted)]
    return float(found.rpartition(" ")[2])


# ------------------------------------------------------------------------------------------ traces
def test_one_trace_joins_the_client_the_api_and_the_worker(observed: Observed) -> None:
    spans = until(lambda: whole(observed), "the trace is whole")
    api, request = spans["POST /v1/jobs"]
    worker, job = spans["job patch"]
    assert (api, worker) == ("adapter-safety-api", "adapter-safety-worker")
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert job.parent_span_id == request.span_id
    for name in ("models", "fetch", "modules", "save", "store"):
        service, span = spans[name]
        assert service == "adapter-safety-worker"
        assert span.trace_id == job.trace_id
    numbers = {a.key: a.value for a in spans["modules"][1].attributes}
    assert numbers["adapter_safety.modules"].int_value == observed.job.modules_total
    assert numbers["adapter_safety.align_s"].double_value > 0


def whole(observed: Observed) -> dict[str, tuple[str, object]] | None:
    found = observed.receiver.of_trace(TRACE)
    return found if {"POST /v1/jobs", "job patch", "store"} <= found.keys() else None


# ------------------------------------------------------------------------------------------ health
def worker_health(observed: Observed) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from app.cli import main; main()", "worker-health"]
    return subprocess.run(
        command, env=observed.site.environment(), capture_output=True, text=True, check=False
    )


def test_a_worker_whose_child_hangs_is_not_ready_until_it_goes_on(observed: Observed) -> None:
    until(lambda: observed.state() == (200, "ready"), "the worker is ready", WITHIN_S)
    assert worker_health(observed).returncode == 0
    with frozen(observed.worker):
        until(lambda: observed.state() == (503, "silent"), "the hung child is seen", WITHIN_S)
        said = worker_health(observed)
        assert (said.returncode, "has shown no work" in said.stderr) == (1, True)
        assert httpx.get(f"{observed.worker_url}/healthz").status_code == 503
        assert observed.metrics(observed.worker_url).status_code == 200
    until(lambda: observed.state() == (200, "ready"), "the child goes on", WITHIN_S)
    assert worker_health(observed).returncode == 0


def test_a_long_job_leaves_its_worker_ready(observed: Observed, llama_world: World) -> None:
    hold = observed.site.data / "hold"
    hold.touch()
    job = submitted(observed.site, llama_world)
    until(lambda: observed.site.job(job).status == "running", "the job runs")
    began = monotonic_of(observed)
    until(lambda: monotonic_of(observed) > began + 2 * SILENT_S, "twice the silence", WITHIN_S)
    assert observed.state() == (200, "ready")
    assert observed.site.job(job).status == "running"
    hold.unlink()
    assert observed.site.await_end(job).status == "succeeded"


def monotonic_of(observed: Observed) -> float:
    """When the worker's parent last looked."""
    text = observed.metrics(observed.worker_url).text
    assert "silent" not in observed.state()
    return value(text, "adapter_safety_worker_heartbeat_timestamp_seconds")


def test_a_broker_that_is_away_makes_a_worker_unready_and_no_reason_to_restart(
    observed: Observed,
) -> None:
    observed.site.redis.stop()
    try:
        until(lambda: observed.state() == (503, "no broker"), "the outage is seen", WITHIN_S)
        assert worker_health(observed).returncode == 0
        ready = httpx.get(f"{observed.site.url}/readyz", timeout=30)
        assert (ready.status_code, ready.json()["workers"]) == (503, None)
        text = observed.metrics(observed.site.url).text
        assert value(text, "adapter_safety_part_up", part="database") == 1
    finally:
        observed.site.redis.start()
    until(lambda: observed.state() == (200, "ready"), "the broker is back", WITHIN_S)


def test_counts_outlive_the_child_that_made_them_and_its_files_say_no_more(
    observed: Observed,
) -> None:
    name = "adapter_safety_worker_modules_total"
    before = value(observed.metrics(observed.worker_url).text, name, decision="projected")
    child = until(lambda: child_of(observed.worker), "there is a child")
    child.kill()
    until(lambda: another_child(observed, child), "another child is there", WITHIN_S)
    text = observed.metrics(observed.worker_url).text
    assert value(text, name, decision="projected") == before


def another_child(observed: Observed, than: psutil.Process) -> bool:
    found = child_of(observed.worker)
    return found is not None and found.pid != than.pid


def test_a_worker_that_ends_leaves_nothing_behind(observed: Observed) -> None:
    observed.worker.terminate()
    assert observed.worker.wait(WITHIN_S) == 0
    assert list((observed.site.data / "workers").iterdir()) == []
    assert not list(observed.site.broker.scan_iter("adapter-safety.canary*"))
    assert not Path(f"/proc/{observed.worker.pid}").exists()
    assert {line["process"] for line in observed.log("worker")} == {"worker"}
