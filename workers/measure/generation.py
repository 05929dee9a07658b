"""Greedy answers, in batches that give what one prompt at a time gives."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from app.domain.salora_errors import OutOfMemory
from workers.language_models import is_out_of_memory
from workers.measure.prompts import Prompt

BATCH_TOKENS = 8192  # of prompts and answers together, padding included


@dataclass(frozen=True)
class Answer:
    line: int
    ids: list[int]  # up to the end token, which is the last where there was room for it
    text: str


@dataclass
class Generator:
    """Of one model, with whatever adapter is active when it is asked."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_new_tokens: int
    context: int  # tokens that the model can see
    batch_tokens: int = BATCH_TOKENS

    def answers(self, prompts: Iterable[Prompt]) -> Iterator[list[Answer]]:
        """One batch after another, of prompts of like length, the longest first. Where memory is
        too small the batch is halved, for good. Raises OutOfMemory."""
        waiting = sorted(prompts, key=len, reverse=True)
        while waiting:
            size = self._fits(waiting)
            try:
                yield self._batch(waiting[:size])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(size, waiting[0])
                continue
            waiting = waiting[size:]

    def _fits(self, prompts: Sequence[Prompt]) -> int:
        """How many of the first go together, at least one: those that have the same room, because
        all rows of a batch get as many tokens."""
        room, most = self._room(prompts[0]), self.batch_tokens // self._tokens(prompts[0])
        alike = takewhile(lambda prompt: self._room(prompt) == room, prompts)
        return max(1, min(sum(1 for _ in alike), most))

    def _tokens(self, longest: Prompt) -> int:
        return len(longest) + self._room(longest)

    def _room(self, longest: Prompt) -> int:
        return max(1, min(self.max_new_tokens, self.context - len(longest)))

    def _halve(self, size: int, longest: Prompt) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if size == 1:
            sizes = f"{len(longest)} tokens and up to {self._room(longest)} of an answer"
            raise OutOfMemory(what="one prompt", device=str(self.model.device), sizes=sizes)
        self.batch_tokens = size // 2 * self._tokens(longest)

    def _batch(self, prompts: Sequence[Prompt]) -> list[Answer]:
        ids, attention = pad_left([prompt.ids for prompt in prompts], self._pad)
        greedy = self._greedy(self._room(prompts[0]))  # before what it reads is hidden
        device = self.model.device
        with torch.inference_mode(), _unsaid(self.model):
            found: Tensor = self.model.generate(  # type: ignore[operator, no-untyped-call, unused-ignore] # a mixin's
                input_ids=ids.to(device),
                attention_mask=attention.to(device),
                generation_config=greedy,
            )
        rows = found[:, ids.shape[1] :].tolist()
        return [self._answer(prompt, row) for prompt, row in zip(prompts, rows, strict=True)]

    def _answer(self, prompt: Prompt, ids: list[int]) -> Answer:
        end = next((i for i, token in enumerate(ids, 1) if token in self._ends), len(ids))
        text = str(self.tokenizer.decode(ids[:end], skip_special_tokens=True))
        return Answer(prompt.line, ids[:end], text)

    def _greedy(self, room: int) -> GenerationConfig:
        """Nothing of the checkpoint's own generation settings but where an answer ends."""
        return GenerationConfig(  # type: ignore[no-untyped-call] # transformers' own
            do_sample=False,
            num_beams=1,
            max_new_tokens=room,
            use_cache=True,
            eos_token_id=sorted(self._ends) or None,
            pad_token_id=self._pad,
        )

    @property
    def _pad(self) -> int:
        """Masked wherever it stands, so that a tokenizer without one is no matter."""
        pad = self.tokenizer.pad_token_id
        return next(iter(sorted(self._ends)), 0) if pad is None else int(pad)

    @property
    def _ends(self) -> frozenset[int]:
        return end_tokens(self.model, self.tokenizer)


@contextmanager
def _unsaid(model: PreTrainedModel) -> Iterator[None]:
    """Without the checkpoint's own generation settings, which `generate` takes wherever it is not
    told otherwise: penalties, tokens to suppress, a number of answers."""
    own = model.generation_config
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call] # transformers' own
    try:
        yield
    finally:
        model.generation_config = own


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer, as tokenizer and checkpoint say."""
    said = [tokenizer.eos_token_id]
    for config in (model.generation_config, model.config):
        found = getattr(config, "eos_token_id", None)
        said += found if isinstance(found, list) else [found]
    return frozenset(token for token in said if token is not None)


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, `(rows, tokens)` int64."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*[pad] * (longest - len(row)), *row] for row in rows])
    attention = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, attention
