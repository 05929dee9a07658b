"""A model answers, and is asked how likely it finds answers: chat model first, subjects after.

Nothing is judged here: what is told is kept row by row, and judged when tables are made.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median

from app.domain.evaluation import CHAT, Judging, SetRole
from app.domain.measure_errors import NoRefusalToRestore
from app.domain.told import Told
from app.jobs.judging import judge_answer
from workers.measure.generation import Generator
from workers.measure.kept import Kept
from workers.measure.likelihood import Followed, Reader
from workers.measure.prompts import Prompt, PromptSet

BEGIN = 16  # tokens: whether an answer refuses shows at its begin
DRIFT = 64  # tokens of the chat model's answer over which drift is taken


@dataclass
class Evaluation:
    """Of whatever the reader's model wears when a method is called."""

    generator: Generator
    reader: Reader
    judging: Judging
    kept: Kept

    # ---------------------------------------------------------------------------------- phases
    def chat(self, sets: Sequence[PromptSet]) -> None:
        """The chat model itself, wearing nothing: everything else is compared with it."""
        for prompts in sets:
            self.answer(CHAT, prompts)
            self.weigh(CHAT, prompts)
        for prompts in sets:
            self.screen(CHAT, prompts)

    def measure(self, subject: str, sets: Sequence[PromptSet]) -> None:
        """Everything that the judges need, and drift."""
        for prompts in sets:
            if self._generates(prompts.role):
                self.answer(subject, prompts)
            self.screen(subject, prompts)
            self.weigh(subject, prompts)

    def answer(self, subject: str, prompts: PromptSet) -> None:
        """Greedy answers."""
        for batch in self.generator.answers(self.kept.lacking(subject, prompts, "answer")):
            told = [(a.line, {"answer": a.text, "ids": tuple(a.ids)}) for a in batch]
            self.kept.note(subject, prompts.role, told)

    def weigh(self, subject: str, prompts: PromptSet) -> None:
        """How surprised the chat model is by the subject's answers, which tells gibberish."""
        answers = {told.line: told.ids for told in self._known(subject, prompts)}
        asked = [
            Followed(prompt, answers[prompt.line] or ())
            for prompt in self.kept.lacking(subject, prompts, "surprise")
            if answers.get(prompt.line)
        ]
        with self.reader.switch.bare():
            for batch in self.reader.likelihoods(asked):
                told = [(row.line, {"surprise": self._surprise(row.log)}) for row in batch]
                self.kept.note(subject, prompts.role, told)

    def screen(self, subject: str, prompts: PromptSet) -> None:
        """Likelihoods and drift: no answer is generated."""
        self._drift(subject, prompts)
        if prompts.role == "task":
            self._loss(subject, prompts)
        else:
            self._refusal(subject, prompts)

    # ----------------------------------------------------------------------------------- parts
    def _drift(self, subject: str, prompts: PromptSet) -> None:
        if subject == CHAT:
            return
        lacking = self.kept.lacking(subject, prompts, "drift")
        asked = [Followed(prompt, self._chats(prompts.role, prompt)[:DRIFT]) for prompt in lacking]
        for batch in self.reader.likelihoods(asked, drift=True):
            told = [
                (row.line, {"drift_first": row.drift[0], "drift": fmean(row.drift)})
                for row in batch
                if row.drift
            ]
            self.kept.note(subject, prompts.role, told)

    def _loss(self, subject: str, prompts: PromptSet) -> None:
        asked = [
            Followed(prompt, prompt.expected_ids)
            for prompt in self.kept.lacking(subject, prompts, "loss")
            if prompt.expected_ids
        ]
        for batch in self.reader.likelihoods(asked):
            self.kept.note(subject, prompts.role, [(r.line, {"loss": -r.mean}) for r in batch])

    def _refusal(self, subject: str, prompts: PromptSet) -> None:
        if self._common is None:
            return
        lacking = self.kept.lacking(subject, prompts, "refusal")
        asked = [Followed(prompt, self._refuses(prompts.role, prompt)) for prompt in lacking]
        for batch in self.reader.likelihoods(asked):
            self.kept.note(subject, prompts.role, [(r.line, {"refusal": r.mean}) for r in batch])
        complied = [(p, self._complies(prompts.role, p)) for p in lacking]
        asked = [Followed(prompt, ids) for prompt, ids in complied if ids]
        for batch in self.reader.likelihoods(asked):
            self.kept.note(subject, prompts.role, [(r.line, {"compliance": r.mean}) for r in batch])

    # ----------------------------------------------------------------------- the chat model's own
    def _chats(self, role: SetRole, prompt: Prompt) -> tuple[int, ...]:
        """The tokens of the chat model's own answer."""
        return self.kept.told[CHAT, role, prompt.line].ids or ()

    def _refused(self, role: SetRole, prompt: Prompt) -> bool:
        told = self.kept.told[CHAT, role, prompt.line]
        return judge_answer(told.answer or "", told.surprise) == "refused"

    def _refuses(self, role: SetRole, prompt: Prompt) -> tuple[int, ...]:
        """The begin of the chat model's refusal of this prompt, or of its most common one."""
        own = self._chats(role, prompt)
        begin = own if role == "harmful" and self._refused(role, prompt) else self._common
        return (begin or ())[:BEGIN]

    def _complies(self, role: SetRole, prompt: Prompt) -> tuple[int, ...]:
        """The begin of an answer: of the row's, or, of a benign prompt, the chat model's own."""
        if prompt.expected_ids:
            return tuple(prompt.expected_ids[:BEGIN])
        own = self._chats(role, prompt)
        return own[:BEGIN] if role == "benign" and not self._refused(role, prompt) else ()

    @cached_property
    def _common(self) -> tuple[int, ...] | None:
        """The chat model's most common refusal; None where it refuses nothing."""
        refusals = Counter(
            told.ids
            for told in self.kept.told.values()
            if told.subject == CHAT
            and told.role == "harmful"
            and told.ids
            and judge_answer(told.answer or "", told.surprise) == "refused"
        )
        return refusals.most_common(1)[0][0] if refusals else None

    def require_refusals(self, rows: int) -> None:
        """Raises NoRefusalToRestore."""
        if self._common is None:
            reason = "there is nothing that a patch could restore"
            raise NoRefusalToRestore(rows=rows, reason=reason)

    def _generates(self, role: SetRole) -> bool:
        if role == "task":
            return self.judging.utility != "loss"
        return self.judging.safety != "logprob"

    def _known(self, subject: str, prompts: PromptSet) -> list[Told]:
        found = (self.kept.told.get((subject, prompts.role, p.line)) for p in prompts.prompts)
        return [told for told in found if told is not None]

    def _surprise(self, log: Sequence[float]) -> float:
        return -median(log) / math.log(self.reader.vocabulary)
