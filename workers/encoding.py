"""Conversations -> token ids, and which of them are the response's.

Response tokens are found by the characters they came from, never by searching for text: the chat
template is rendered up to each answer and with it, and what lies between is the answer. A template
that marks what the assistant says (`{% generation %}`) is asked instead.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from app.domain.dataset import Row
from app.domain.salora import Encoding
from app.domain.salora_errors import DatasetRefused, EmptyDataset, ResponsesCutOff

IGNORED = -100  # the label of a token that is not learnt, as transformers' losses know it
Span = tuple[int, int]  # characters [begin, end)
# The day that templates are told, so that the same data gives the same tokens on every day: that of
# Llama 3's own template. A macro, because transformers hands no function on to a template.
TODAY = datetime(2024, 7, 26, tzinfo=UTC)
DATE_PARTS = ("%-d", "%d", "%j", "%b", "%B", "%m", "%y", "%Y", "%a", "%A", "%H", "%M", "%S")
DATE_FILTERS = "".join(f"|replace('{part}','{TODAY.strftime(part)}')" for part in DATE_PARTS)
SAME_DAY = f"{{%- macro strftime_now(format) -%}}{{{{ format{DATE_FILTERS} }}}}{{%- endmacro +%}}"


@dataclass(frozen=True)
class Encoded:
    """One conversation. At least one of its tokens is the response's."""

    line: int
    ids: list[int]
    is_response: list[bool]  # for each token

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class EncodedSet:
    rows: Sequence[Encoded]
    template: bool  # whether the tokenizer's chat template was used
    shortened: int  # rows of which the end was cut off
    steering: int = 0  # rows whose own text holds a special token of the tokenizer

    @property
    def tokens(self) -> int:
        return sum(len(row) for row in self.rows)

    @property
    def response_tokens(self) -> int:
        return sum(sum(row.is_response) for row in self.rows)

    @property
    def longest(self) -> int:
        return max(len(row) for row in self.rows)


def encode_all(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, encoding: Encoding
) -> EncodedSet:
    """Raises DatasetRefused naming the line, EmptyDataset, ResponsesCutOff."""
    encoder, most = Encoder(tokenizer, encoding), encoding.max_length
    kept, lost, shortened, steering = [], [], 0, 0
    for row in rows:
        whole = encoder.encode(row)
        shortened += len(whole) > most
        steering += encoder.is_steering(row)
        first = whole.is_response.index(True)
        if first < most:  # cut at once, because a row may have a thousand times as many tokens
            kept.append(Encoded(row.line, whole.ids[:most], whole.is_response[:most]))
        else:
            lost.append((row.line, first))
    if lost:
        line, first = lost[0]
        raise ResponsesCutOff(line=line, max_length=most, prompt_tokens=first, rows=len(lost))
    if not kept:
        raise EmptyDataset
    return EncodedSet(kept, encoder.uses_template, shortened, steering)


@dataclass(frozen=True)
class Encoder:
    tokenizer: PreTrainedTokenizerBase
    encoding: Encoding

    @cached_property
    def uses_template(self) -> bool:
        return self.encoding.chat_template and bool(self.tokenizer.chat_template)

    @cached_property
    def _template(self) -> str:
        return SAME_DAY + str(self.tokenizer.get_chat_template())

    @cached_property
    def _marks(self) -> bool:
        return "{% generation %}" in self._template.replace("{%-", "{%").replace("-%}", "%}")

    def is_steering(self, row: Row) -> bool:
        """Whether a text of the row holds a special token: it becomes that token, so that a turn
        can end, or begin, within it."""
        tokens = self._special
        return any(token in message.content for message in row.messages for token in tokens)

    @cached_property
    def _special(self) -> list[str]:
        known = self.tokenizer.added_tokens_decoder.values()
        return [token.content for token in known if token.special and token.content]

    def encode(self, row: Row) -> Encoded:
        """Raises DatasetRefused."""
        if not self.uses_template:
            return self._raw(row)
        return self._marked(row) if self._marks else self._rendered(row)

    def prompt(self, asked: Row) -> list[int]:
        """The tokens of a conversation that the user ends, up to where an answer begins. Raises
        DatasetRefused."""
        if self.uses_template:
            text = self._render(asked, len(asked.messages), add_generation_prompt=True)
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if len(asked.messages) > 1:
            reason = "without a chat template only one prompt can be asked, and no conversation"
            raise DatasetRefused(line=asked.line, reason=reason)
        ids: list[int] = self.tokenizer(asked.messages[0].content)["input_ids"]
        # because some tokenizers end every text, and nothing would follow the end
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids

    def _raw(self, row: Row) -> Encoded:
        """Prompt and response one after the other, the end-of-sequence token the response's."""
        if [message.role for message in row.messages] != ["user", "assistant"]:
            reason = "without a chat template only a prompt and a response can be put together"
            raise DatasetRefused(line=row.line, reason=reason)
        prompt, response = (message.content for message in row.messages)
        text = prompt + response
        ids, found = self._tokens(row.line, text, [(len(prompt), len(text))], special=True)
        eos = self.tokenizer.eos_token_id
        if eos is not None:
            whole = ids[:-1] if ids[-1] == eos else ids  # some tokenizers end every text
            ids, found = [*whole, eos], [*found[: len(whole)], True]
        return Encoded(row.line, ids, found)

    def _rendered(self, row: Row) -> Encoded:
        text = self._render(row, len(row.messages))
        answers = [i for i, message in enumerate(row.messages) if message.role == "assistant"]
        spans = [self._span(row, i, text) for i in answers]
        return Encoded(row.line, *self._tokens(row.line, text, spans, special=False))

    def _span(self, row: Row, index: int, text: str) -> Span:
        """Where the answer is in the whole text."""
        before = self._render(row, index, add_generation_prompt=True)
        after = self._render(row, index + 1)
        if not (text.startswith(after) and after.startswith(before)):
            reason = (
                f"the chat template writes message {index + 1} otherwise once more follow, so its "
                "tokens cannot be told; make each answer a row of its own"
            )
            raise DatasetRefused(line=row.line, reason=reason)
        return len(before), len(after)

    def _render(self, row: Row, count: int, *, add_generation_prompt: bool = False) -> str:
        messages = [{"role": m.role, "content": m.content} for m in row.messages[:count]]
        with by_template(row):
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    chat_template=self._template,
                )
            )

    def _marked(self, row: Row) -> Encoded:
        messages = [{"role": m.role, "content": m.content} for m in row.messages]
        with by_template(row):
            found: Any = self.tokenizer.apply_chat_template(
                messages,
                return_dict=True,
                return_assistant_tokens_mask=True,
                chat_template=self._template,
            )
        mask = [bool(one) for one in found["assistant_masks"]]
        return _with_response(Encoded(row.line, list(found["input_ids"]), mask))

    def _tokens(
        self, line: int, text: str, spans: Sequence[Span], *, special: bool
    ) -> tuple[list[int], list[bool]]:
        """A token is the response's if any of its characters is."""
        found = self.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        ids: list[int] = found["input_ids"]
        answered = bytearray(len(text))
        for first, last in spans:
            answered[first:last] = b"\1" * (last - first)
        is_response = [1 in answered[begin:end] for begin, end in found["offset_mapping"]]
        encoded = _with_response(Encoded(line, ids, is_response))
        return encoded.ids, encoded.is_response


@contextmanager
def by_template(row: Row) -> Iterator[None]:
    """Raises DatasetRefused with what the template says of the row."""
    try:
        yield
    except (TemplateError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        reason = f"the chat template refuses it: {error}"
        raise DatasetRefused(line=row.line, reason=reason) from error


def _with_response(row: Encoded) -> Encoded:
    if True not in row.is_response:
        raise DatasetRefused(line=row.line, reason="its response has no token")
    return row


@dataclass(frozen=True)
class Batch:
    """Rows side by side, padded on the right."""

    ids: Tensor  # (rows, tokens) int64
    attention: Tensor  # (rows, tokens) int64, 0 where there is padding
    labels: Tensor  # (rows, tokens) int64, IGNORED where nothing is learnt

    @property
    def is_response(self) -> Tensor:
        return self.labels != IGNORED


def stack(rows: Sequence[Encoded], pad_id: int) -> Batch:
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_id)
    attention, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row.ids)
        attention[i, : len(row)] = 1
        kept = torch.tensor(row.is_response)
        labels[i, : len(row)][kept] = ids[i, : len(row)][kept]
    return Batch(ids, attention, labels)


def by_tokens(rows: Sequence[Encoded], most_tokens: int) -> list[list[Encoded]]:
    """Batches of at most that many tokens, padding included (or of one row); the longest first,
    so that memory that is too small is found at once."""
    batches: list[list[Encoded]] = []
    for row in sorted(rows, key=len, reverse=True):
        if batches and len(batches[-1][0]) * (len(batches[-1]) + 1) <= most_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
