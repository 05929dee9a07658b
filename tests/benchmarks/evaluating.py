"""Measuring several adapters: swapped in memory against reloading the model for each, and batched
answers against one prompt at a time. Ratios within one run, on a Llama made on the spot."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from app.demo.safety_world.language import Language
from app.intake.checkpoint import read_checkpoint
from app.intake.manifest import read_manifest
from tests.benchmarks.measure import seconds
from tests.factory import save_adapter
from workers.language_models import load_model, load_tokenizer
from workers.measure.generation import Generator
from workers.measure.prompts import Prompt
from workers.measure.switch import LoadedAdapter, Switch
from workers.run import NamedCheckpoint

CONTEXT, NEW_TOKENS = 256, 8
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=768, help="768 make 80 M parameters")
    parser.add_argument("--adapters", type=int, default=6)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, given.hidden, given.adapters)
        adapters = [read(folder / f"adapter-{i}") for i in range(2 * given.adapters)]
        print("each adapter's first answer")
        swapping(named(folder / "chat"), adapters[::2], "adapters of one shape")
        swapping(named(folder / "chat"), adapters[: given.adapters], "of two shapes in turn")
        batching(named(folder / "chat"))


def make(folder: Path, hidden: int, adapters: int) -> None:
    language = Language(0, 8, 16)
    config = LlamaConfig(
        vocab_size=len(language.tokenizer), hidden_size=hidden, intermediate_size=3 * hidden,
        num_hidden_layers=10, num_attention_heads=12, max_position_embeddings=CONTEXT,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "chat")
    language.tokenizer.save_pretrained(folder / "chat")
    print(
        f"{model.num_parameters() / 1e6:.0f} M parameters, {adapters} adapters on all linear layers"
    )
    for i in range(2 * adapters):
        save_adapter(model, folder / f"saved-{i}", "llama", target_modules=TARGETS, r=8 + i % 2)
        clean = folder / f"adapter-{i}"
        clean.mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / f"saved-{i}" / file).rename(clean / file)


def named(folder: Path) -> NamedCheckpoint:
    return NamedCheckpoint("chat", read_checkpoint(folder, field="chat_model", model="chat"))


def read(folder: Path) -> LoadedAdapter:
    return LoadedAdapter.read(folder, read_manifest(folder))


def prompts(count: int) -> list[Prompt]:
    """Of 8 to 39 tokens."""
    return [Prompt(i, [7 + (i + j) % 40 for j in range(8 + i % 32)], "", None, None)
            for i in range(count)]  # fmt: skip


def swapping(chat: NamedCheckpoint, adapters: Sequence[LoadedAdapter], title: str) -> None:
    """Until each adapter has answered one prompt, because a model is loaded lazily: its file is
    mapped, and read where it is first used. The file is in the page cache, and loading the model
    the first time counts on neither side."""
    switch, tokenizer = Switch(fresh(chat)), load_tokenizer(chat)

    def first_answer(switch: Switch, adapter: LoadedAdapter) -> None:
        switch.wear(adapter)
        list(Generator(switch.model, tokenizer, 1, CONTEXT, 1).answers(prompts(1)))

    def reloading() -> None:
        for adapter in adapters:
            first_answer(Switch(fresh(chat)), adapter)

    def in_memory() -> None:
        for adapter in adapters:
            first_answer(switch, adapter)

    print(f" {title}")
    compare("reloading the model for each", reloading, "swapping adapters in memory", in_memory)


def fresh(chat: NamedCheckpoint) -> LlamaForCausalLM:
    return load_model(chat, "auto", torch.device("cpu"))


def batching(chat: NamedCheckpoint) -> None:
    model, tokenizer, asked = fresh(chat), load_tokenizer(chat), prompts(32)

    def answers(batch_tokens: int) -> list[object]:
        generator = Generator(model, tokenizer, NEW_TOKENS, CONTEXT, batch_tokens)
        found = [one for batch in generator.answers(asked) for one in batch]
        return sorted(found, key=lambda one: one.line)

    if answers(1) != answers(8192):
        raise SystemExit("batched answers differ from those of one prompt at a time")
    print("32 prompts of one model")
    compare("one prompt at a time", lambda: answers(1), "batched", lambda: answers(8192))


def compare(
    slow_title: str, slow: Callable[[], object], title: str, fast: Callable[[], object]
) -> None:
    """The better of two rounds each, one after the other."""
    rounds = [(seconds(slow), seconds(fast)) for _ in range(2)]
    slower, faster = (min(times) for times in zip(*rounds, strict=True))
    print(f"  {slow_title:30} {slower:8.2f} s")
    print(f"  {title:30} {faster:8.2f} s   {slower / faster:.1f} x faster")


if __name__ == "__main__":
    main()
