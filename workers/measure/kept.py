"""What has been told so far, kept so that a job whose worker is killed goes on from there."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.domain.evaluation import SetRole
from app.domain.measured import Split
from app.domain.told import Key, Told
from workers.measure.prompts import Prompt, PromptSet


def _nothing(_: "Kept") -> None: ...


@dataclass
class Kept:
    """By subject, role and line, of one split's rows. `on_more` is called after each batch, and may
    raise."""

    on_more: Callable[["Kept"], None] = _nothing
    split: Split = "all"
    told: dict[Key, Told] = field(default_factory=dict)

    def lacking(self, subject: str, prompts: PromptSet, what: str) -> list[Prompt]:
        """Prompts of which `what` (a field of Told) is not known."""
        known = (self.told.get((subject, prompts.role, p.line)) for p in prompts.prompts)
        return [
            prompt
            for prompt, told in zip(prompts.prompts, known, strict=True)
            if told is None or getattr(told, what) is None
        ]

    def note(
        self, subject: str, role: SetRole, lines: Iterable[tuple[int, dict[str, Any]]]
    ) -> None:
        """One batch: what became known of these lines."""
        for line, known in lines:
            key = (subject, role, line)
            self.told[key] = self.told.get(key, Told(*key)).with_(**known)
        self.on_more(self)

    def of(self, subject: str, prompts: PromptSet) -> Sequence[Told]:
        """In the data set's order. Raises KeyError for a row that nothing is known of."""
        return [self.told[subject, prompts.role, prompt.line] for prompt in prompts.prompts]


def write_kept(path: Path, kept: Iterable[Kept]) -> None:
    """All splits' rows in one file."""
    with path.open("w") as file:
        for each in kept:
            for told in each.told.values():
                file.write(json.dumps({"split": each.split, "told": told.as_json()}) + "\n")


def read_kept(path: Path, kept: Iterable[Kept]) -> None:
    """What an earlier attempt has written, each split's to its own."""
    by_split = {each.split: each for each in kept}
    with path.open() as file:
        for line in file:
            found = json.loads(line)
            told = Told.from_json(found["told"])
            by_split[found["split"]].told[told.key] = told
