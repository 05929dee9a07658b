"""SaLoRA's parts made of a tiny chat model, through the product's own code."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from app.alignment.kit import Kit
from app.alignment.safety_module import SAFETY_MODULE_FILE, SafetyModule
from app.alignment.salora import attach
from app.domain.dataset import Message, Row
from app.domain.salora import Encoding, InitRecipe, SafetyModuleRecipe, TrainRecipe
from app.intake.checkpoint import read_checkpoint
from tests.chat_models import TEMPLATE, save_chat_model
from workers.compute import Compute
from workers.encoding import encode_all
from workers.language_models import load_model, load_tokenizer
from workers.run import NamedCheckpoint
from workers.safety_module import MadePart, make_safety_module
from workers.salora_init import InitInput, make_kit
from workers.training import TrainInput

CPU = Compute(threads=1, device=torch.device("cpu"))
SHORT = Encoding(max_length=32)
SAFETY_SET, TASK_SET = "5" * 64, "7" * 64
TARGETS = {
    "llama": ("q_proj", "v_proj", "down_proj"),
    "qwen2": ("q_proj", "k_proj", "up_proj"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
}


def rows(count: int, prompt: str, response: str) -> list[Row]:
    return [
        Row(i, (Message("user", f"{prompt} {i}?"), Message("assistant", f"{response} {i}")))
        for i in range(1, count + 1)
    ]


def refusals(count: int = 20) -> list[Row]:
    return rows(count, "how to break", "no, not")


def task(count: int = 20) -> list[Row]:
    return rows(count, "add two to", "that is")


def quiet(*_: object) -> None:
    """No progress."""


@dataclass(frozen=True)
class SaloraWorld:
    architecture: str
    chat: NamedCheckpoint
    safety_folder: Path
    safety: MadePart
    kit_folder: Path
    kit: MadePart

    @property
    def module(self) -> SafetyModule:
        return SafetyModule.load(self.safety_folder / SAFETY_MODULE_FILE)

    def model(self, dtype: str = "float32") -> PreTrainedModel:
        return load_model(self.chat, dtype, torch.device("cpu"))  # type: ignore[arg-type] # a name

    def attached(self, dtype: str = "float32") -> PeftModel:
        """As in a training script."""
        model = PeftModel.from_pretrained(self.model(dtype), self.kit_folder, is_trainable=True)
        attach(model, self.kit_folder)
        return model.eval()

    def training(self, recipe: TrainRecipe, data: Sequence[Row] | None = None) -> TrainInput:
        tokenizer = load_tokenizer(self.chat)
        return TrainInput(
            model=self.model(),
            kit=Kit.load(self.kit_folder),
            kit_folder=self.kit_folder,
            rows=encode_all(data or task(40), tokenizer, recipe.encoding),
            recipe=recipe,
            pad_id=0,
        )

    def recipe(self, **changes: object) -> TrainRecipe:
        settings = {"learning_rate": 1e-2, "batch_size": 8, "checkpoint_steps": 3}
        recipe = TrainRecipe(self.kit.id, TASK_SET, encoding=SHORT, **settings)  # type: ignore[arg-type]
        return replace(recipe, **changes)  # type: ignore[arg-type] # the tests name real fields


def make_salora_world(
    folder: Path,
    architecture: str = "llama",
    *,
    template: str | None = TEMPLATE,
    dtype: torch.dtype = torch.float32,
    init: InitRecipe | None = None,
    with_task: bool = True,
) -> SaloraWorld:
    save_chat_model(folder / "chat", architecture, template=template, dtype=dtype)
    chat = named(folder / "chat")
    for name in ("safety", "kit"):
        (folder / name).mkdir()
    recipe = SafetyModuleRecipe(SAFETY_SET, TARGETS[architecture], rank=6, encoding=SHORT)
    safety = make_safety_module(chat, refusals(), recipe, folder / "safety", CPU, quiet)
    module = SafetyModule.load(folder / "safety" / SAFETY_MODULE_FILE)
    chosen = init or InitRecipe(safety.id, TASK_SET, rank=4, task_rank=8, encoding=SHORT)
    given = InitInput(chat, module, task() if with_task else None, chosen)
    kit = make_kit(given, folder / "kit", CPU, quiet)
    return SaloraWorld(architecture, chat, folder / "safety", safety, folder / "kit", kit)


def named(folder: Path) -> NamedCheckpoint:
    return NamedCheckpoint("chat", read_checkpoint(folder, field="chat_model", model="chat"))
