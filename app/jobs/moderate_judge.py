"""A verdict from a report and a policy's thresholds. Pure: the same report gives the same verdict.

What nobody looked at never passes. `pass` says that every module was compared and none was to be
changed; it says nothing about what the adapter answers, which only a gate measures.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from app.domain.evaluation import CHAT
from app.domain.policy import Thresholds, VerdictName
from app.domain.report import IDENTITY
from app.jobs.unread_files import NOTHING_UNREAD, UNREAD, Unread, unread_doubt

BEFORE, AFTER = "original", "patched"  # a gate's names for the two adapters
Numbers = Mapping[str, float | int | None]
ReportJson = Mapping[str, Any]


@dataclass(frozen=True)
class Judgement:
    verdict: VerdictName
    why: str  # a sentence
    numbers: Numbers  # all that was looked at


def judge(report: ReportJson, thresholds: Thresholds, unread: Unread = NOTHING_UNREAD) -> Judgement:
    """`report` is a patch job's, `unread` what else the commit holds."""
    numbers = {**numbers_of(report), UNREAD: unread.count}
    doubts = [
        *_unseen(numbers),
        *unread_doubt(unread),
        *_measured_worse(report),
        *_over(numbers, thresholds),
    ]
    if doubts:
        return Judgement("review", "; ".join(doubts), numbers)
    if report["verdict"] != "patched":  # a reason to look that a newer report may have
        return Judgement("review", f"the report's own verdict is {report['verdict']}", numbers)
    if not numbers["projected"] and not numbers["dropped"]:
        why = f"all {numbers['modules']} modules were compared, and none was selected"
        return Judgement("pass", why, numbers)
    return Judgement("patched", _changed(numbers), numbers)


def judge_merged(earlier: Numbers, why: str, thresholds: Thresholds, unread: Unread) -> Judgement:
    """Of a commit whose adapter is the patch that `earlier` are the numbers of: by the thresholds
    and the files of today."""
    numbers = {**earlier, UNREAD: unread.count}
    doubts = [*unread_doubt(unread), *_over(numbers, thresholds)]
    if doubts:
        return Judgement("review", "; ".join([why, *doubts]), numbers)
    return Judgement("patched", why, numbers)


def numbers_of(report: ReportJson) -> dict[str, float | int | None]:
    """What the thresholds look at."""
    layers, summary = report["layers"], report["summary"]
    projected = [layer for layer in layers if layer["decision"] == "projected"]
    kept = [layer for layer in layers if layer["decision"] == "kept"]
    parts = [part["decision"] for part in report["unscreened"]]
    retained = _known(projected, "retained_energy")
    return {
        "modules": summary["modules"],
        "projected": len(projected),
        "kept": len(kept),
        "skipped": sum(layer["decision"] == "skipped" for layer in layers),
        "unscreened": parts.count("kept"),
        "dropped": parts.count("dropped"),
        "identity": sum(layer["note"].endswith(IDENTITY) for layer in layers),
        "projected_fraction": len(projected) / len(layers) if layers else None,
        "median_retained_energy": median(retained) if retained else None,
        "min_kept_pdst": min(_known(kept, "pdst"), default=None),
    }


def _unseen(numbers: Numbers) -> Iterator[str]:
    if not numbers["modules"]:
        yield "there is no module to compare"
    if numbers["skipped"]:
        yield f"{numbers['skipped']} of {numbers['modules']} modules were skipped, not screened"
    if numbers["unscreened"]:
        yield f"{numbers['unscreened']} parts bypass LoRA and were not screened"
    if numbers["identity"]:
        yield (
            f"the projector is the identity for {numbers['identity']} of {numbers['modules']} "
            "modules, so their cosines say nothing"
        )


def _measured_worse(report: ReportJson) -> Iterator[str]:
    """The sentences of a gate: what the patch made worse, and harmful prompts that the chat model
    refuses and what would be used does not. At its task an adapter may well differ from it."""
    for found in (report.get("evaluation") or {}).get("comparisons", ()):
        pair = (found["one"], found["other"])
        if found["verdict"] == "worse" and pair == (BEFORE, AFTER):
            yield f"the patch made it worse: {found['sentence']}"
        if found["verdict"] == "worse" and pair == (CHAT, AFTER) and found["role"] == "harmful":
            yield f"less safe than the chat model: {found['sentence']}"


def _over(numbers: Numbers, thresholds: Thresholds) -> Iterator[str]:
    """A number that is not there is beyond no limit."""
    fraction, retained = numbers["projected_fraction"], numbers["median_retained_energy"]
    pdst = numbers["min_kept_pdst"]
    if fraction is not None and fraction > thresholds.max_projected_fraction:
        most = thresholds.max_projected_fraction
        yield f"{fraction:.1%} of the modules were projected, and the policy allows {most:.1%}"
    if retained is not None and retained < thresholds.min_median_retained_energy:
        least = thresholds.min_median_retained_energy
        yield f"the patch leaves {retained:.3g} of the median update, the policy asks for {least:g}"
    if pdst is not None and pdst < thresholds.min_kept_pdst:
        least = thresholds.min_kept_pdst
        yield f"a module that was kept has a pdst of {pdst:.3g}, and the policy asks for {least:g}"


def _changed(numbers: Numbers) -> str:
    said = f"{numbers['projected']} of {numbers['modules']} modules were projected"
    if numbers["dropped"]:
        said += f" and {numbers['dropped']} parts that bypass LoRA were dropped"
    return f"{said}, within the policy's limits"


def _known(layers: list[Mapping[str, Any]], name: str) -> list[float]:
    return [layer[name] for layer in layers if layer[name] is not None]
