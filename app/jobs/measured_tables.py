"""What was measured, as rows and words: for tables in CSV, Markdown and HTML."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.jobs.frontier_plot import interval, is_choice
from app.jobs.scatter import Value

ReportJson = Mapping[str, Any]
CellJson = Mapping[str, Any]

CELL_COLUMNS = (
    "subject",
    "role",
    "judge",
    "n",
    "outcome",
    "count",
    "rate",
    "rate_low",
    "rate_high",
    "loss",
    "loss_low",
    "loss_high",
    "given_count",
    "given_rate",
    "gibberish",
    "empty",
    "drift_first",
    "drift_answer",
)
POINT_COLUMNS = (
    "family",
    "step",
    "steps",
    "method",
    "stage",
    "refusal",
    "refusal_low",
    "refusal_high",
    "over_refusal",
    "over_refusal_low",
    "over_refusal_high",
    "utility",
    "utility_low",
    "utility_high",
    "drift",
    "gibberish",
    "holds",
    "frontier",
    "default",
    "beats_default",
    "chosen",
)
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # how a spreadsheet's formulas begin
AS_IT_IS = {"rescale": "none", "full_weights": "keep"}
SCORES: Mapping[str, str] = {"refusal": "harmful", "over_refusal": "benign", "utility": "task"}


def cell_rows(report: ReportJson) -> Iterator[dict[str, object]]:
    """One a cell of an evaluation's table."""
    for cell in report["table"]:
        rate, loss = cell["rate"] or {}, cell["loss"] or {}
        given, drift = cell["given"] or {}, cell["drift"] or {}
        yield {
            **{name: cell[name] for name in ("role", "judge", "n", "outcome")},
            "subject": no_formula(cell["subject"]),
            "count": rate.get("count"),
            "rate": rate.get("value"),
            "rate_low": rate.get("low"),
            "rate_high": rate.get("high"),
            "loss": loss.get("value"),
            "loss_low": loss.get("low"),
            "loss_high": loss.get("high"),
            "given_count": given.get("count"),
            "given_rate": given.get("value"),
            "gibberish": cell["gibberish"],
            "empty": cell["empty"],
            "drift_first": drift.get("first"),
            "drift_answer": drift.get("answer"),
        }


def point_rows(report: ReportJson) -> Iterator[dict[str, object]]:
    """One a setting of a frontier."""
    for index, point in enumerate(report["points"]):
        yield {
            **{name: point[name] for name in ("family", "step", "steps", "stage", "holds")},
            "method": no_formula(method_said(point["method"])),
            **_scores(point),
            "drift": point["scores"]["drift"],
            "gibberish": gibberish(point["cells"]),
            "frontier": index in report["frontier"],
            "default": index == report["default"],
            "beats_default": index in report["dominating"],
            "chosen": is_choice(report, point),
        }


def _scores(point: Mapping[str, Any]) -> dict[str, object]:
    row: dict[str, object] = {}
    for name, role in SCORES.items():
        found = _interval(point["cells"], role)
        row[name] = point["scores"][name]
        row[f"{name}_low"] = found and found.low
        row[f"{name}_high"] = found and found.high
    return row


def _interval(cells: Sequence[CellJson], role: str) -> Value | None:
    cell = next((cell for cell in cells if cell["role"] == role), None)
    return None if cell is None else interval(cell)


def gibberish(cells: Sequence[CellJson]) -> int | None:
    """Of all roles; None where no answers were generated."""
    known = [cell["gibberish"] for cell in cells if cell["gibberish"] is not None]
    return sum(known) if known else None


def matrix(table: Sequence[CellJson]) -> dict[str, dict[str, CellJson]]:
    """By subject and role, in the table's order."""
    found: dict[str, dict[str, CellJson]] = {}
    for cell in table:
        found.setdefault(cell["subject"], {})[cell["role"]] = cell
    return found


def roles_of(table: Sequence[CellJson]) -> list[str]:
    return list(dict.fromkeys(cell["role"] for cell in table))


def with_interval(share: Mapping[str, Any] | None) -> str:
    """A rate or a mean with its 95 % interval, or a dash."""
    if share is None:
        return "-"
    return f"{share['value']:.3f} [{share['low']:.3f}, {share['high']:.3f}]"


def score_said(point: Mapping[str, Any], name: str) -> str:
    """A setting's score, with its interval where a cell has one."""
    value = point["scores"][name]
    if value is None:
        return "-"
    found = _interval(point["cells"], SCORES[name])
    return f"{value:.3f} [{found.low:.3f}, {found.high:.3f}]" if found else f"{value:.3f}"


def standing(report: ReportJson, index: int) -> str:
    """What a setting is among the others."""
    said = {
        "frontier": index in report["frontier"],
        "default": index == report["default"],
        "beats the default": index in report["dominating"],
        "chosen": is_choice(report, report["points"][index]),
    }
    return ", ".join(name for name, is_so in said.items() if is_so)


def outcome(report: ReportJson) -> str:
    """How the choice stands, in a word or two."""
    if report["satisfied"]:
        return "Chosen"
    return "Not confirmed" if report["choice"]["point"]["holds"] else "Nearest"


def method_said(method: Mapping[str, Any]) -> str:
    """A patch job's method in one line, without what is unset or as it is by itself."""
    given = {k: v for k, v in method.items() if v is not None and AS_IT_IS.get(k) != v}
    select = given.pop("select", None) or {}
    projector = given.pop("projector", None)
    names = [given.pop("name", None), projector if method.get("name") == "safe_lora" else None]
    others = [f"{name} {_plain(value)}" for name, value in given.items()]
    chosen = " ".join(_plain(select[key]) for key in ("by", "value") if select.get(key) is not None)
    return ", ".join(str(part) for part in (*names, *others, chosen) if part)


def flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names and values, without what is unset; what is within another by a dot."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        elif value is not None:
            yield f"{before}{name}", _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def no_formula(text: str) -> str:
    """Text that a spreadsheet shows and does not compute: names come from strangers."""
    return f"'{text}" if text.startswith(FORMULAS) else text
