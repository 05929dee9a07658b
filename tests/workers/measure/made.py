"""What tests of measuring share: tiny chat models in memory, and prompts for them."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app.domain.dataset import Message, Row
from app.domain.evaluation import SetRole
from tests.chat_models import save_chat_model
from tests.workers.salora_world import CPU, named
from workers.language_models import load_model, load_tokenizer
from workers.measure.generation import Generator
from workers.measure.prompts import Prompt, PromptSet

LETTERS = range(8, 50)  # token ids of tests.chat_models


def loaded(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As the product loads them."""
    chat = named(folder)
    return load_model(chat, "float32", CPU.device), load_tokenizer(chat)


def made(
    folder: Path, architecture: str = "llama"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    save_chat_model(folder, architecture)
    return loaded(folder)


def prompts(*lengths: int, seed: int = 3) -> list[Prompt]:
    """Random letters; lines from 1."""
    draw = random.Random(seed)
    return [
        Prompt(line, draw.choices(LETTERS, k=length), "", None, None)
        for line, length in enumerate(lengths, 1)
    ]


def prompt_set(role: SetRole, *lengths: int, seed: int = 3) -> PromptSet:
    return PromptSet(role, prompts(*lengths, seed=seed))


def asked(text: str, response: str | None = None, line: int = 1, **before: str) -> Row:
    """A row; `before` has messages by role that stand first."""
    messages = [Message(role, said) for role, said in before.items()]  # type: ignore[arg-type] # real roles
    messages.append(Message("user", text))
    if response is not None:
        messages.append(Message("assistant", response))
    return Row(line, tuple(messages))


def watched(model: nn.Module, look: Callable[[torch.Tensor], None]) -> None:
    """Every forward pass shows its token ids `(rows, tokens)`."""

    def hook(_: nn.Module, args: object, given: dict[str, torch.Tensor]) -> None:
        look(given["input_ids"])

    model.register_forward_pre_hook(hook, with_kwargs=True)


def short_of_memory(model: nn.Module, most_rows: int) -> list[int]:
    """The model refuses larger batches. How many rows it was given, call by call."""
    given: list[int] = []

    def look(ids: torch.Tensor) -> None:
        given.append(len(ids))
        if len(ids) > most_rows:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    watched(model, look)
    return given


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Each prompt that has had an answer generated: its length and its line."""
    seen: list[tuple[int, int]] = []
    whole = Generator._batch

    def batch(generator: Generator, prompts: Sequence[Prompt]) -> object:
        found = whole(generator, prompts)
        seen.extend((len(prompt), prompt.line) for prompt in prompts)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Generator, "_batch", batch)
        yield seen
