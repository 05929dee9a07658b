"""How likely a model finds given answers, and how far it is from the chat model there."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from app.domain.salora_errors import OutOfMemory
from workers.language_models import is_out_of_memory
from workers.measure.prompts import Prompt
from workers.measure.switch import Switch

BATCH_LOGITS = 1 << 26  # elements: 256 MiB in float32, of which a few are alive at once


@dataclass(frozen=True)
class Followed:
    """A prompt and an answer whose likelihood is asked for."""

    prompt: Prompt
    ids: Sequence[int]  # at least one

    def __len__(self) -> int:
        return len(self.prompt) + len(self.ids)


@dataclass(frozen=True)
class Likelihood:
    """Of one answer's tokens, in nats."""

    line: int
    log: list[float]  # log p(token | all before it)
    drift: list[float] | None  # KL(chat || model) of the distribution of each; None if not asked

    @property
    def mean(self) -> float:
        return sum(self.log) / len(self.log)


@dataclass
class Reader:
    """Of one model, with whatever it wears."""

    switch: Switch
    context: int  # tokens that the model can see
    batch_logits: int = BATCH_LOGITS

    def likelihoods(
        self, asked: Iterable[Followed], *, drift: bool = False
    ) -> Iterator[list[Likelihood]]:
        """One batch after another, the longest first; of an answer as much as the model can see.
        Where memory is too small the batch is halved, for good. Raises OutOfMemory."""
        waiting = sorted(map(self._seen, asked), key=len, reverse=True)
        while waiting:
            most = self.batch_logits // (len(waiting[0]) * self.vocabulary)
            size = max(1, min(len(waiting), most))
            try:
                yield self._batch(waiting[:size], drift)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(size, waiting[0])
                continue
            waiting = waiting[size:]

    def _seen(self, row: Followed) -> Followed:
        return Followed(row.prompt, row.ids[: max(1, self.context - len(row.prompt))])

    @property
    def vocabulary(self) -> int:
        embedding: Any = self.switch.model.get_input_embeddings()
        return int(embedding.weight.shape[0])

    def _halve(self, size: int, longest: Followed) -> None:
        if self.switch.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if size == 1:
            device = str(self.switch.model.device)
            raise OutOfMemory(what="one prompt", device=device, sizes=f"{len(longest)} tokens")
        self.batch_logits = size // 2 * len(longest) * self.vocabulary

    def _batch(self, rows: Sequence[Followed], drift: bool) -> list[Likelihood]:
        with torch.inference_mode():
            ours = self._logs(rows)
            chat: list[Tensor] | None = None
            if drift:
                with self.switch.bare():
                    chat = self._logs(rows)
        return [_told(row, ours[i], chat[i] if chat else None) for i, row in enumerate(rows)]

    def _logs(self, rows: Sequence[Followed]) -> list[Tensor]:
        """Log-probabilities where each answer's tokens are due, `(tokens, vocabulary)` float32."""
        model, longest = self.switch.model, max(map(len, rows))
        ids = torch.tensor([_padded(row, longest) for row in rows])
        attention = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        kept = longest - min(len(row.prompt) for row in rows) + 1
        found: Tensor = model(
            input_ids=ids.to(model.device),
            attention_mask=attention.to(model.device),
            use_cache=False,
            **_last(model, kept),
        ).logits[:, -kept:]
        first = longest - kept
        return [
            log_softmax(found[i, len(row.prompt) - 1 - first : len(row) - 1 - first].float(), -1)
            for i, row in enumerate(rows)
        ]


def _last(model: torch.nn.Module, count: int) -> dict[str, int]:
    """That only so many positions' logits are wanted, for models that can be told."""
    known = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": count} if known else {}


def _padded(row: Followed, longest: int) -> list[int]:
    """On the right, where what comes later is never looked at."""
    return [*row.prompt.ids, *row.ids, *[0] * (longest - len(row))]


def _told(row: Followed, ours: Tensor, chat: Tensor | None) -> Likelihood:
    ids = torch.tensor(row.ids, device=ours.device)
    log = ours.gather(1, ids[:, None])[:, 0]
    drift = None
    if chat is not None:
        drift = (chat.exp() * (chat - ours)).sum(1).clamp_min(0).tolist()
    return Likelihood(row.prompt.line, log.tolist(), drift)
