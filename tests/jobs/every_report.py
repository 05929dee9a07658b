"""One made-up report of every kind, as plain JSON.

`python -m tests.jobs.every_report FOLDER` writes them there in every form.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.domain.alignment import AlignmentReport, Warmed
from app.domain.method import Method, Selection
from app.domain.report import ModelReference, Report, Unscreened
from app.domain.salora_report import (
    DataUse,
    ExportRow,
    SafetyRow,
    SaloraReport,
    StartRow,
    TrainedStep,
    Training,
)
from app.jobs.decide import decided
from app.jobs.render import FORMATS
from tests.jobs.measured_reports import HOSTILE, MODEL, evaluation, frontier
from tests.jobs.test_decide import report

Json = dict[str, Any]
BASE = ModelReference("org/tiny-base", None, "d" * 64)
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
VERSIONS = {"adapter-safety": "0.1.0", "torch": "2.9.1"}
WHERE = ("q_proj", 0, "q_proj", (8, 4))
DATA = DataUse("safety", "1" * 64, 20, 400, 150, 0, True)


def patched(kind: str = "patch", layers: int = 6, **changes: Any) -> Report:
    """Modules of every decision, one that is skipped, and a parameter that was kept."""
    places = [(n, name) for n in range(layers) for name in KINDS]
    cosines = [round((i * 37 % 101) / 101, 6) for i in range(len(places))]
    plain = report(cosines, Method())
    found = [
        replace(
            layer,
            module=f"model.layers.{n}.{name}",
            layer=n,
            kind=name,
            retained_energy=layer.cosine and layer.cosine / 3,
            update_norm=1.25 + i / 7,
        )
        for i, (layer, (n, name)) in enumerate(zip(plain.layers, places, strict=True))
    ]
    none = {"cosine": None, "retained_energy": None, "rounding": None, "decision": "skipped"}
    pdst = {"pdst_if_kept": None, "pdst_if_selected": None}
    found[3] = replace(found[3], **none, **pdst, reason="base and chat weights are equal here")
    kept = Unscreened("lm_head.weight", "it is in modules_to_save", "kept")
    undecided = replace(
        plain, layers=found, unscreened=[kept], kind=kind, versions=VERSIONS, **changes
    )
    return decided(undecided, Method(select=Selection("threshold", 0.4)))


def hostile() -> Json:
    """Names that no gate lets through, in case that one does."""
    found: Json = plain(patched(layers=1))
    found["layers"][0]["module"] = f"{HOSTILE}[a](b){{0}}`\n\u202e"
    found["layers"][1]["module"] = "=cmd()"
    found["unscreened"][0]["name"] = "a`|b[x](http://example.org)"
    found["warnings"] = [f"{HOSTILE} [click](http://example.org) {{0}}"]
    return found


def aligned() -> AlignmentReport:
    kept = Warmed("a.q_proj", (8, 4), "panels", "BF16", 64, 0.0012345, "computed")
    none = Warmed("a.k_proj", (8, 4), "none", None, 0, None, None, "the cache is full")
    warnings = ["1 module was not kept."]
    models = (BASE, MODEL)
    return AlignmentReport(
        *models, "subspace", 0.9, None, [kept, none], 64, warnings, versions=VERSIONS
    )


def salora(kind: Any, row: Any, training: Training | None = None) -> SaloraReport:
    return SaloraReport(
        kind, MODEL, {"rank": 4}, [DATA], [row], ["Few rows."], VERSIONS, "5" * 64, training
    )


def every() -> Mapping[str, Json]:
    curve = [TrainedStep(i, 2 / i, 1e-4, 1000.0 + i) for i in range(1, 9)]
    training = Training(8, 1.0, 1234, None, curve)
    gated = patched(evaluation=evaluation().as_json(), verdict="review")
    made: Mapping[str, Any] = {
        "patch": patched(),
        "score": patched("score"),
        "gated": gated,
        "what_if": patched(what_if=True),
        "alignment": aligned(),
        "safety_module": salora("safety_module", SafetyRow(*WHERE, 4, 0.91, 3.5, 0.25, "sketch")),
        "salora_init": salora("salora_init", StartRow(*WHERE, 4, 4, 8, 0.75, 0.125, 12.5)),
        "salora_train": salora("salora_train", ExportRow(*WHERE, 4, 3, 1.5, 1e-7, None), training),
        "salora_export": salora("salora_export", ExportRow(*WHERE, 4, 3, 1.5, 1e-7, 0.001)),
        "evaluation": evaluation(),
        "losses": evaluation(by_loss=True),
        "frontier": frontier(),
        "unsatisfied": frontier(satisfied=False),
    }
    return {**{name: plain(one) for name, one in made.items()}, "hostile": hostile()}


def plain(one: Any) -> Json:
    found: Json = json.loads(json.dumps(one.as_json()))
    return found


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    render: Callable[[Json], str]
    for name, found in every().items():
        for form, (_, render) in FORMATS.items():
            (folder / f"{name}.{form}").write_text(render(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
