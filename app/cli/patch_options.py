"""What `patch` and `score` are given: their options, and what they stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.exits import NOT_HELD
from app.cli.salora_ids import module_id
from app.domain.errors import InvalidField
from app.domain.method import DEFAULT_THRESHOLD, Method, Selection, one_selection

FAIL_ON = ("review", "projected")

Adapter = Annotated[
    Path,
    typer.Argument(help="adapter: folder, zip, tar, tar.gz, or org/name[@revision] on the hub"),
]
Chat = Annotated[str, typer.Option(help="aligned model: folder, or id[@revision]")]
Base = Annotated[
    str | None, typer.Option(help="unaligned model: as chat-model; not needed for salora")
]
Projector = Annotated[str, typer.Option(help="approximate, exact, subspace or complement")]
Energy = Annotated[
    float | None, typer.Option(help="subspace, complement: share of ||V||_F^2 to hold [0.9]")
]
Rank = Annotated[
    int | None, typer.Option(help="subspace, complement: number of directions instead")
]
Threshold = Annotated[
    float | None, typer.Option(help="project where the cosine is at or below this [0.5]")
]
Count = Annotated[int | None, typer.Option(help="project exactly this many")]
Fraction = Annotated[float | None, typer.Option(help="project at least this share")]
Every = Annotated[bool, typer.Option("--all", help="project every module")]
Name = Annotated[
    str, typer.Option("--method", help="safe_lora, salora, or a baseline: scale, prune")
]
Factor = Annotated[float | None, typer.Option(help="scale: B is multiplied by it")]
Rescale = Annotated[
    str,
    typer.Option(help="safe_lora: none, or preserve_norm to restore the update's norm"),
]
FullWeights = Annotated[
    str, typer.Option(help="modules_to_save, trained tokens, biases: keep, drop or project")
]
SafetyModule = Annotated[Path | None, typer.Option(help="salora: folder of the safety module")]
Report = Annotated[
    Path | None, typer.Option(help="also write the report: .json, .csv, .md, .html or .sarif")
]
FailOn = Annotated[
    list[str] | None,
    typer.Option(
        help="exit with 1 where the verdict is review, or a module is projected; once for each"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print the report's JSON and nothing else")]
Server = Annotated[str | None, typer.Option(help="let this server do it")]


@dataclass(frozen=True)
class PatchAsked:
    """The models as they were given: folders or ids."""

    adapter: Path
    base_model: str | None
    chat_model: str
    method: Method
    safety_module: Path | None

    @property
    def models(self) -> dict[str, str | None]:
        return {"base_model": self.base_model, "chat_model": self.chat_model}


def method(given: Mapping[str, Any], select: Selection, safety_module: Path | None) -> Method:
    """Raises InvalidField."""
    part = None if safety_module is None else module_id(safety_module)
    return Method(**given, select=select, safety_module=part)


def asked_for(
    adapter: Path, models: tuple[str | None, str], method: Method, safety_module: Path | None
) -> PatchAsked:
    """Raises InvalidField."""
    if method.needs_base and models[0] is None:
        raise InvalidField(field="base_model", reason="is missing")
    return PatchAsked(adapter, *models, method, safety_module)


def selection(
    threshold: float | None, count: int | None, fraction: float | None, every: bool
) -> Selection:
    """Raises InvalidField when more than one is given, or one that means nothing."""
    values = {"threshold": threshold, "count": count, "fraction": fraction, "all": every or None}
    given = {name: value for name, value in values.items() if value is not None}
    return one_selection(given) or Selection("threshold", DEFAULT_THRESHOLD)


def _has_unscreened(report: Mapping[str, Any]) -> bool:
    """What makes a patch's verdict `review`; a score has no such verdict."""
    skipped = (each for each in report["layers"] if each["decision"] == "skipped")
    kept = (part for part in report["unscreened"] if part["decision"] == "kept")
    return any(each["update_norm"] != 0 for each in skipped) or any(kept)


def check_fail_on(given: Sequence[str] | None) -> None:
    """Before any work. Raises InvalidField."""
    for each in given or ():
        if each not in FAIL_ON:
            raise InvalidField(field="fail_on", reason=f"must be one of {', '.join(FAIL_ON)}")


def fail_where_asked(report: Mapping[str, Any], given: Sequence[str] | None) -> None:
    """Ends the process with 1 where the report has what was asked to fail on."""
    projected = report["summary"]["projected"]
    review = report["verdict"] == "review" or _has_unscreened(report)
    found = {
        "review": "a part was not screened, or something became worse" if review else "",
        "projected": f"{projected} modules are projected" if projected else "",
    }
    said = [f"fail-on {name}: {found[name]}" for name in FAIL_ON if name in (given or ())]
    broken = [sentence for sentence in said if not sentence.endswith(": ")]
    for sentence in broken:
        typer.echo(sentence, err=True)
    if broken:
        raise typer.Exit(NOT_HELD)
