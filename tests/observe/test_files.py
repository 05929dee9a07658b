"""What is shipped for Prometheus and Grafana, and what is written about it, fits what there is."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from app.api.figures import ApiFigures, Looked
from app.jobs.figures import Figures
from app.observe.watch import PHASES
from tests.conftest import missing
from workers.figures import Counted, _OfParent
from workers.health import Health

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "observability"
DOCS = (ROOT / "docs" / "monitoring.md").read_text()
NAME = re.compile(r"\badapter_safety_[a-z_]+\b")
DEVICE = {"allocated": 1.0, "reserved": 2.0, "total": 3.0}


class Glanced:
    def look(self) -> Looked:
        return Looked(Figures({}, 0.0, {}), 0, 0)


def families() -> Iterator[Metric]:
    """All that API and worker can expose, a device's memory included."""
    yield from ApiFigures(Glanced()).registry.collect()  # type: ignore[arg-type] # it looks alike
    of_worker = CollectorRegistry()
    Counted(of_worker, lambda: DEVICE)
    of_worker.register(_OfParent(Health("ready", 1, 1.0, 1.0, 1.0)))
    yield from of_worker.collect()


def base(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


METRICS = {base(family): family for family in families() if family.name.startswith("adapter_")}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
SERIES = {f"{name}{end}" for name, family in METRICS.items() for end in SUFFIXES[family.type]}


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def queries() -> list[str]:
    """The dashboard's, with Grafana's own variables as Grafana fills them in."""
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [query.replace("$__rate_interval", "1m") for query in asked]


# ----------------------------------------------------------------------------------------- metrics
def test_every_metric_of_dashboard_and_alerts_is_exposed() -> None:
    named = [*queries(), *(alert["expr"] for alert in alerts())]
    named.append((FOLDER / "alerts.test.yml").read_text())
    used = {name for text in named for name in NAME.findall(text)}
    assert used <= SERIES
    assert len(used) > 15


def test_every_metric_is_documented_with_its_type_and_labels_and_no_other_is() -> None:
    rows = re.findall(r"^\| `(adapter_safety_\w+)` \| (\w+) \| (.*?) \|", DOCS, re.MULTILINE)
    written = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert written == {name: (f.type, labels_of(f)) for name, f in METRICS.items()}
    assert set(NAME.findall(DOCS)) <= SERIES | set(METRICS)


def labels_of(family: Metric) -> set[str]:
    """Of a counter without a value yet there is no sample to ask."""
    unseen = {
        "adapter_safety_http_requests": {"method", "route", "status"},
        "adapter_safety_http_request_duration_seconds": {"method", "route"},
        "adapter_safety_uploads_refused": {"problem"},
    }
    if family.name in unseen:
        return unseen[family.name]
    return set().union(*(sample.labels for sample in family.samples)) - {"le"}


def test_names_follow_prometheus_conventions() -> None:
    for name, family in METRICS.items():
        assert family.documentation.endswith("."), name
        assert name.endswith("_total") == (family.type == "counter"), name
        assert not re.search(r"_(ms|millis|mb|kb|percent|count)$", name), name


def test_every_phase_and_every_field_of_a_line_is_documented() -> None:
    from app.observe.logs import FIELDS

    for word in (*PHASES, *(field for field in FIELDS if field not in ("cosine", "source"))):
        assert f"`{word}`" in DOCS, word


# ------------------------------------------------------------------------------------------ alerts
def test_every_alert_says_what_it_is_and_leads_to_what_to_do() -> None:
    for alert in alerts():
        anchor = alert["alert"].lower()
        assert alert["annotations"]["runbook"] == f"docs/monitoring.md#{anchor}"
        assert f"### {alert['alert']}\n" in DOCS
        assert alert["labels"]["severity"] in ("critical", "warning")
    described = re.findall(r"^### (AdapterSafety\w+)$", DOCS, re.MULTILINE)
    assert described == [alert["alert"] for alert in alerts()]


def test_every_alert_has_a_test_in_which_it_rings() -> None:
    groups = yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]
    tests = [test for group in groups for test in group.get("alert_rule_test", [])]
    rung = {test["alertname"] for test in tests if test["exp_alerts"]}
    assert rung == {alert["alert"] for alert in alerts()}


def promtool(*arguments: str | Path) -> None:
    binary = shutil.which("promtool")
    if binary is None:
        missing("promtool is not on PATH (Debian's package prometheus)")
    command = [str(binary), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_their_tests_pass() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("test", "rules", "alerts.test.yml")


def test_prometheus_takes_its_configuration() -> None:
    promtool("check", "config", "--syntax-only", "prometheus.yml")


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"query_{at}", "expr": query} for at, query in enumerate(queries())]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", path)


# --------------------------------------------------------------------------------------- dashboard
def test_the_dashboards_panels_have_places_of_their_own_and_say_what_they_show() -> None:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert panel["title"]
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("target", ["panels", "targets"])
def test_the_dashboard_asks_the_data_source_that_is_chosen(target: str) -> None:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    (variable,) = dashboard["templating"]["list"]
    asking = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    if target == "targets":
        asking = [each for panel in asking for each in panel["targets"]]
    for each in asking:
        assert each["datasource"] == {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
