"""Rows of a data set -> prompts as token ids, and what would follow them."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.domain.dataset import Row
from app.domain.evaluation import SetRole
from app.domain.measure_errors import PromptsTooLong
from app.domain.salora_errors import EmptyDataset
from workers.encoding import Encoder


@dataclass(frozen=True)
class Prompt:
    """One row: what the model is asked, up to where its answer begins."""

    line: int
    ids: list[int]
    text: str  # of the last question, for people
    expected: str | None  # the row's own answer
    expected_ids: list[int] | None  # as it follows the prompt, its end included

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class PromptSet:
    role: SetRole
    prompts: Sequence[Prompt]

    @property
    def sha256(self) -> str:
        """Over the prompts' tokens, in order."""
        text = json.dumps([prompt.ids for prompt in self.prompts], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def encode_prompts(
    role: SetRole, rows: Iterable[Row], encoder: Encoder, most_tokens: int
) -> PromptSet:
    """`most_tokens` is what a prompt must stay below, so that there is room for an answer.

    Raises EmptyDataset, DatasetRefused naming the line, PromptsTooLong.
    """
    prompts = [_prompt(row, encoder) for row in rows]
    if not prompts:
        raise EmptyDataset
    check_room(role, prompts, most_tokens)
    return PromptSet(role, prompts)


def check_room(role: SetRole, prompts: Sequence[Prompt], most_tokens: int) -> None:
    """Raises PromptsTooLong."""
    long = [prompt for prompt in prompts if len(prompt) >= most_tokens]
    if long:
        raise PromptsTooLong(
            role=role, line=long[0].line, tokens=len(long[0]), limit=most_tokens, rows=len(long)
        )


def _prompt(row: Row, encoder: Encoder) -> Prompt:
    answered = row.messages[-1].role == "assistant"
    asked = row.messages[:-1] if answered else row.messages
    ids = encoder.prompt(Row(row.line, asked))
    expected, follows = None, None
    if answered:
        expected, follows = row.messages[-1].content, _last_answer(row, encoder)
    return Prompt(row.line, ids, asked[-1].content, expected, follows)


def _last_answer(row: Row, encoder: Encoder) -> list[int]:
    """The tokens of the row's last answer."""
    encoded = encoder.encode(row)
    end = len(encoded) - encoded.is_response[::-1].index(True)
    begin = end
    while begin and encoded.is_response[begin - 1]:
        begin -= 1
    return encoded.ids[begin:end]
