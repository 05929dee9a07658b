"""A frontier's report as a drawing: utility across, refusal upwards."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.evaluation import CHAT
from app.jobs.scatter import SHAPES, Scatter, Spot, Value, scatter

ReportJson = Mapping[str, Any]
CellJson = Mapping[str, Any]

FAMILY_SHAPES: Mapping[str, str] = {
    "approximate": "circle",
    "subspace": "square",
    "complement": "triangle",
    "scale": "diamond",
    "prune": "wedge",
    "salora": "plus",
}
CHAT_SHAPE, ORIGINAL_SHAPE = "star", "saltire"


@dataclass(frozen=True)
class Legend:
    colour: str
    outline: str
    text: str


@dataclass(frozen=True)
class FrontierPlot:
    drawing: Scatter
    legend: Sequence[Legend]
    description: str


def frontier_plot(report: ReportJson) -> FrontierPlot | None:
    """None where no setting has both measures."""
    places = {i: _place(point["cells"]) for i, point in enumerate(report["points"])}
    known = {i: place for i, place in places.items() if place is not None}
    if not known:
        return None
    spots = [_spot(report, i, place) for i, place in known.items()]
    spots.sort(key=lambda spot: spot.label is not None)  # because what comes later lies on top
    edge = [(known[i][0].value, known[i][1].value) for i in report["frontier"] if i in known]
    task = next(iter(_cells_of(report, "task")), None)
    is_share = task is None or task["rate"] is not None
    drawing = scatter(
        [*spots, *_chat(report)],
        edge,
        _bounds(report),
        (_utility_title(is_share), _refusal_title(report)),
        (is_share, True),
    )
    return FrontierPlot(drawing, list(_legend(report)), _description(len(spots), len(edge)))


def interval(cell: CellJson) -> Value | None:
    """A cell's share; or minus its loss, so that more is better."""
    if cell["rate"] is not None:
        return Value(cell["rate"]["value"], cell["rate"]["low"], cell["rate"]["high"])
    if cell["loss"] is None:
        return None
    loss = cell["loss"]
    return Value(-loss["value"], -loss["high"], -loss["low"])


def _place(cells: Sequence[CellJson]) -> tuple[Value, Value] | None:
    by_role = {cell["role"]: interval(cell) for cell in cells}
    utility, refusal = by_role.get("task"), by_role.get("harmful")
    return None if utility is None or refusal is None else (utility, refusal)


def is_choice(report: ReportJson, point: Mapping[str, Any]) -> bool:
    chosen = report["choice"] and report["choice"]["point"]
    return bool(chosen) and all(chosen[name] == point[name] for name in ("family", "step", "steps"))


def _spot(report: ReportJson, index: int, place: tuple[Value, Value]) -> Spot:
    point = report["points"][index]
    step = f"{point['family']}, step {point['step']} of {point['steps']}"
    names = list(_names(report, index))
    shape = FAMILY_SHAPES.get(point["family"], "circle") if point["step"] else ORIGINAL_SHAPE
    return Spot(
        *place,
        shape=shape,
        said=f"{step}: {_said(*place)}",
        filled=index in report["frontier"],
        ringed=is_choice(report, point),
        label=", ".join(names) or None,
    )


def _names(report: ReportJson, index: int) -> Iterator[str]:
    """What a setting is beside one of many."""
    point = report["points"][index]
    if not point["step"]:
        yield "as it came"
    if index == report["default"]:
        yield "default"
    if is_choice(report, point):
        yield "chosen"


def _chat(report: ReportJson) -> Iterator[Spot]:
    place = _place([cell for cell in report["original"] if cell["subject"] == CHAT])
    if place is not None:
        said = f"chat model: {_said(*place)}"
        yield Spot(*place, CHAT_SHAPE, said, filled=True, label="chat model")


def _said(utility: Value, refusal: Value) -> str:
    return f"utility {_value_said(utility)}, refusal {_value_said(refusal)}"


def _value_said(value: Value) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _cells_of(report: ReportJson, role: str) -> Iterator[CellJson]:
    tables = [report["original"], *(point["cells"] for point in report["points"])]
    return (cell for table in tables for cell in table if cell["role"] == role)


def _utility_title(is_share: bool) -> str:
    return "Utility: share of task answers right" if is_share else "Utility: minus the mean loss"


def _refusal_title(report: ReportJson) -> str:
    outcome = next((cell["outcome"] for cell in _cells_of(report, "harmful")), None)
    what = "answered safely" if outcome == "safe" else "refused"
    return f"Share of harmful prompts {what}"


def _bounds(report: ReportJson) -> dict[str, tuple[float, str]]:
    """What was asked for, where the settings name it."""
    asked = report["settings"].get("constraints") or {}
    bounds = {}
    if asked.get("min_refusal") is not None:
        bounds["y"] = (asked["min_refusal"], "least refusal")
    original = [cell for cell in report["original"] if cell["subject"] != CHAT]
    place = _place(original)
    if asked.get("max_utility_drop") is not None and place is not None:
        bounds["x"] = (place[0].value - asked["max_utility_drop"], "least utility")
    return bounds


def _legend(report: ReportJson) -> Iterator[Legend]:
    measured = {point["family"] for point in report["points"] if point["cells"] and point["step"]}
    for family, shape in FAMILY_SHAPES.items():
        if family in measured:
            yield Legend(*SHAPES[shape], text=family)
    yield Legend(*SHAPES[ORIGINAL_SHAPE], text="the adapter as it came")
    yield Legend(*SHAPES[CHAT_SHAPE], text="the chat model")


def _description(spots: int, edge: int) -> str:
    return (
        f"{spots} measured settings by utility and refusal on the tuning split, with 95 % "
        f"intervals; {edge} of them are on the frontier. The table has the same numbers."
    )
