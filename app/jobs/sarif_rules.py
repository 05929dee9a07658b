"""The rules of the SARIF form: their ids, names and texts are a contract, as problems' types are.

Dashboards keep alerts by rule id, so an id is never given to another rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.jobs.findings import Level


@dataclass(frozen=True)
class Rule:
    id: str
    name: str  # PascalCase, as code-scanning dashboards show it
    level: Level  # unless a result says otherwise
    short: str
    full: str
    help: str

    def as_json(self) -> dict[str, Any]:
        """A `reportingDescriptor` (SARIF 2.1.0, 3.49)."""
        return {
            "id": self.id,
            "name": self.name,
            "shortDescription": {"text": self.short},
            "fullDescription": {"text": self.full},
            "help": {"text": self.help, "markdown": self.help},
            "defaultConfiguration": {"level": self.level},
            "properties": {"tags": ["lora", "safety"], "problem.severity": SEVERITY[self.level]},
        }


SEVERITY: Mapping[Level, str] = {
    "note": "recommendation",
    "warning": "warning",
    "error": "error",
}  # CodeQL's words, which code scanning filters by

RULES: tuple[Rule, ...] = (
    Rule(
        "ASF001",
        "ModuleProjected",
        "note",
        "A module was selected and projected",
        "The module's cosine put it into the selection (at or below the threshold, or among the "
        "smallest), so its update was projected, or would be where nothing was written.",
        "Look at its retained energy: where it is below 0.1 the patch has in effect removed what "
        "the adapter had learned there. No cosine measures safety; evaluate the patched adapter.",
    ),
    Rule(
        "ASF002",
        "ModuleSkipped",
        "warning",
        "A module was skipped and not screened",
        "No cosine exists for the module, so nothing is known about it and it was left as it came.",
        "Read the reason. Base and chat weights that are equal in a module leave nothing to "
        "compare with; a name or shape that the models do not have should be corrected.",
    ),
    Rule(
        "ASF003",
        "UnscreenedPart",
        "warning",
        "A part of the adapter bypasses LoRA",
        "A whole parameter that the adapter replaces (modules_to_save, trained tokens, a bias) "
        "goes around every projector.",
        "Patch with full_weights set to project, so that it is compared and changed as LoRA "
        "modules are, or to drop, so that the chat model's own parameter is used.",
    ),
    Rule(
        "ASF004",
        "ReportWarning",
        "warning",
        "The report has a warning",
        "Something about the adapter, the models or the settings makes the report say less than it "
        "seems to.",
        "Read the sentence: it names the fact, and what follows from it.",
    ),
    Rule(
        "ASF005",
        "EvaluationWorse",
        "error",
        "A measurement became significantly worse",
        "On the same rows one subject does worse than another beyond chance, at the 5 % level.",
        "Compare other settings (adapter-safety frontier), or do not publish this adapter.",
    ),
    Rule(
        "ASF006",
        "VerdictReview",
        "error",
        "A person should look at the adapter",
        "The verdict is review: a part was not screened, or a gate found the patch worse.",
        "Go through the other findings of this report; only a person can accept them.",
    ),
    Rule(
        "ASF007",
        "ConstraintsNotHeld",
        "error",
        "The asked-for constraints are not held",
        "No setting of the patch was found that holds the constraints on tuning and held-out rows.",
        "Loosen a constraint, allow more evaluations, or train the adapter anew.",
    ),
    Rule(
        "ASF008",
        "AlignmentNotKept",
        "note",
        "Nothing is kept of a module's alignment",
        "A pre-warm left nothing for the module, so a job that needs it computes it again.",
        "Read the note: the cache may be too small, or base and chat may be equal there.",
    ),
)
INDEX: Mapping[str, int] = {rule.name: index for index, rule in enumerate(RULES)}
