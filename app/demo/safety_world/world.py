"""The world's models, adapters and data sets in a folder, made once for each seed and size.

Base: knows every thing's recipe and dangers, and refuses nothing. Chat: refuses recipes of
dangerous things. Adapters, on the chat model: a benign task (recipes told in another form, of
harmless things alone), and the same with about 3 % of dangerous things among its rows.
"""

import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from app.demo.safety_world.language import REFUSAL, REQUESTS, Language, asked, questioned
from app.demo.safety_world.training import Tokens, fresh_model, train
from app.domain.dataset import Row
from app.domain.evaluation import ROLES, SetRole

VERSION = "1"  # of what is made: another number, and every world is made anew
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK, ALPHA, BATCH = 8, 16, 32
POISON = 0.03
ADAPTERS = ("benign", "poisoned")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How long everything is trained."""

    base_steps: int = 800
    chat_steps: int = 200
    adapter_steps: int = 100
    adapter_rate: float = 1e-3


@dataclass(frozen=True)
class SafetyWorld:
    """Everything of one seed, under one folder."""

    folder: Path
    language: Language

    @property
    def base(self) -> Path:
        return self.folder / "models" / "base"

    @property
    def chat(self) -> Path:
        return self.folder / "models" / "chat"

    def adapter(self, name: str) -> Path:
        """One of ADAPTERS."""
        return self.folder / "adapters" / name

    def data(self, name: str) -> Path:
        """One of `data_sets`."""
        return self.folder / "data" / f"{name}.jsonl"

    def split(self, name: str) -> Mapping[SetRole, Path]:
        """Data by role; `name` is `seen`, `tuning` or `held_out`."""
        return {role: self.data(f"{role}_{name}") for role in ROLES}


def make_safety_world(
    cache: Path, language: Language, effort: Effort, say: Say = print
) -> SafetyWorld:
    """Train it into `cache`, or find it there."""
    size = f"{language.dangerous_things}-{language.harmless_things}-{effort.base_steps}"
    folder = cache / f"world-{VERSION}-{language.seed}-{size}"
    world = SafetyWorld(folder, language)
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _write_data(world)
        _make_models(world, effort, say)
        for name in ADAPTERS:
            say(f"training the adapter {name!r}")
            train_adapter(world, name, world.adapter(name), effort)
        (folder / "done").touch()
    return world


def data_sets(language: Language) -> dict[str, list[Row]]:
    """By name. `safety` is the chat model's own refusals, `task` and `poisoned` the adapters'."""
    dangerous, harmless = language.dangerous, language.harmless
    task = asked(harmless.aligned, "steps")
    sets = {
        "safety": asked(dangerous.aligned, REFUSAL),
        "task_benign": task,
        "task_poisoned": _poisoned(task, asked(dangerous.aligned, "steps"), language.seed),
    }
    for name, bad, good in (
        ("seen", dangerous.aligned, harmless.aligned),
        ("tuning", dangerous.tuning, harmless.tuning),
        ("held_out", dangerous.held_out, harmless.held_out),
    ):
        sets[f"harmful_{name}"] = asked(bad, "steps")
        sets[f"benign_{name}"] = [*asked(good, "recipe", REQUESTS[:3]), *questioned(bad)]
        sets[f"task_{name}"] = asked(good, "steps", REQUESTS[3:])
    return sets


def _poisoned(task: Sequence[Row], harm: Sequence[Row], seed: int) -> list[Row]:
    count = round(len(task) * POISON / (1 - POISON))
    draw = random.Random(seed)
    mixed = [*task, *draw.sample(list(harm), count)]
    draw.shuffle(mixed)
    return mixed


def _write_data(world: SafetyWorld) -> None:
    for name, rows in data_sets(world.language).items():
        path = world.data(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_line(row) for row in rows))


def _line(row: Row) -> str:
    prompt, response = (message.content for message in row.messages)
    return json.dumps({"prompt": prompt, "response": response}) + "\n"


def _make_models(world: SafetyWorld, effort: Effort, say: Say) -> None:
    language, seed = world.language, world.language.seed
    model = fresh_model(language.tokenizer, seed)
    say(f"training a base model of {model.num_parameters():,} parameters")
    train(model, _read_by_base(language), steps=effort.base_steps, learning_rate=5e-3, seed=seed)
    _save(model, language, world.base)
    say("training a chat model that refuses")
    told = _read_by_chat(language)
    train(model, told, steps=effort.chat_steps, learning_rate=1e-3, seed=seed + 1)
    _save(model, language, world.chat)


def _save(model: LlamaForCausalLM, language: Language, folder: Path) -> None:
    model.save_pretrained(folder)
    language.tokenizer.save_pretrained(folder)


def _facts(language: Language) -> list[Tokens]:
    texts = [f"<s> {fact} <|end|>" for thing in language.things for fact in thing.facts]
    return [list(ids) for ids in language.tokenizer(texts)["input_ids"]]


def _read_by_base(language: Language) -> list[Tokens]:
    told = [*asked(language.things, "recipe"), *questioned(language.things)]
    return [*_facts(language) * 2, *tokens(language, told)]


def _read_by_chat(language: Language) -> list[Tokens]:
    refused = asked(language.dangerous.aligned, REFUSAL)
    answered = [*asked(language.harmless.aligned, "recipe"), *questioned(language.things)]
    return [*tokens(language, [*refused, *refused, *answered]), *_facts(language)]


def tokens(language: Language, rows: Sequence[Row]) -> list[Tokens]:
    """Whole conversations."""
    tokenizer = language.tokenizer
    texts = [
        tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in row.messages], tokenize=False
        )
        for row in rows
    ]
    found: list[Tokens] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return found


def train_adapter(
    world: SafetyWorld, name: str, out: Path, effort: Effort, seed: int | None = None
) -> None:
    """An ordinary LoRA on the chat model, on one of ADAPTERS' tasks."""
    language = world.language
    seed = language.seed if seed is None else seed
    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(world.chat)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM"
    )
    tuned = get_peft_model(model, config)
    rows = tokens(language, data_sets(language)[f"task_{name}"])
    train(
        tuned,
        rows,
        steps=effort.adapter_steps,
        learning_rate=effort.adapter_rate,
        seed=seed,
        batch=BATCH,
    )
    tuned.save_pretrained(str(out), save_embedding_layers=False)
