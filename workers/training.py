"""A training with transformers' Trainer: a kit's adapter with SaLoRA attached, or a plain LoRA of
the same settings.

It can be ended at any step and go on from its last checkpoint, elsewhere, with the same result: the
Trainer keeps optimizer, schedule, random states and the place in the data.
"""

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from app.alignment.kit import Kit
from app.alignment.salora import attach
from app.domain.errors import Stopped, WorkerStopping
from app.domain.salora import TrainRecipe
from app.domain.salora_errors import NonFiniteLoss, OutOfMemory
from app.domain.salora_report import TrainedStep, Training
from workers.encoding import Encoded, EncodedSet, stack
from workers.language_models import is_out_of_memory
from workers.sweeping import OnStep

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"

OnCheckpoint = Callable[[Path, int], None]
"""(the Trainer's checkpoint folder, its step)."""


@dataclass(frozen=True)
class TrainInput:
    model: PreTrainedModel
    kit: Kit
    kit_folder: Path
    rows: EncodedSet
    recipe: TrainRecipe
    pad_id: int


@dataclass
class Trained:
    """What a training left: the adapter in `folder`, as PEFT saves it."""

    folder: Path
    training: Training
    warnings: list[str] = field(default_factory=list)


def train(given: TrainInput, work: Path, on_step: OnStep, on_checkpoint: OnCheckpoint) -> Trained:
    """Train in the folder `work`; a checkpoint in `work/checkpoints` is gone on from.

    Where memory is too small the batch is halved and accumulated twice as often. Raises
    NonFiniteLoss, OutOfMemory, and what the two callbacks raise (`Stopped` after a checkpoint was
    kept, where there was a step to keep).
    """
    warnings: list[str] = []
    batch, accumulation = given.recipe.batch_size, given.recipe.gradient_accumulation_steps
    model = _adapted(given)
    checkpoint = _last(work)
    resumed = _step_of(checkpoint) if checkpoint else None
    while True:
        told = _Told(on_step, on_checkpoint)
        trainer = _trainer(model, given, work, (batch, accumulation), told)
        try:
            trainer.train(resume_from_checkpoint=_last(work))
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            batch, accumulation = _halved(batch, accumulation, given)
            warnings.append(
                f"Memory was too small: the batch was halved to {batch}, and {accumulation} were "
                "accumulated for each step."
            )
            model.unload()
            model = _adapted(given)
    told.raise_if_stopped()
    folder = work / "trained"
    model.save_pretrained(str(folder))
    return Trained(folder, _told_of(trainer, model, resumed), warnings)


def _adapted(given: TrainInput) -> PeftModel:
    """The seed is for what starts at random: a plain LoRA's `A`."""
    set_seed(given.recipe.seed)
    if given.recipe.plain_lora:
        config = LoraConfig.from_pretrained(str(given.kit_folder))
        config.inference_mode = False
        config.base_model_name_or_path = given.model.name_or_path
        plain = get_peft_model(given.model, config)
        assert isinstance(plain, PeftModel)  # noqa: S101 because PEFT's type allows a mixed model
        return plain
    model: PeftModel = PeftModel.from_pretrained(
        given.model, str(given.kit_folder), is_trainable=True
    )
    attach(model, given.kit)
    return _saved_offline(model, given.model.name_or_path)


def _saved_offline(model: PeftModel, folder: str | None) -> PeftModel:
    """PEFT looks the base model's configuration up when it saves, by this name: on this machine."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = folder
    return model


def _halved(batch: int, accumulation: int, given: TrainInput) -> tuple[int, int]:
    """Raises OutOfMemory where the batch is one row already."""
    if given.model.device.type == "cuda":
        torch.cuda.empty_cache()
    if batch == 1:
        sizes = (
            f"rows of up to {given.rows.longest} tokens, {given.model.num_parameters()} parameters"
        )
        raise OutOfMemory(what="a batch of one row", device=str(given.model.device), sizes=sizes)
    return math.ceil(batch / 2), 2 * accumulation


class _Rows(Dataset[Encoded]):
    def __init__(self, rows: Sequence[Encoded]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Encoded:
        return self._rows[index]


@dataclass
class _Told(TrainerCallback):
    """Carries steps and checkpoints out. What a caller raises ends the training at a step's end,
    with a checkpoint of it."""

    on_step: OnStep
    on_checkpoint: OnCheckpoint
    stopped: Stopped | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        said = {name: logs[name] for name in ("loss", "learning_rate", "tokens_per_s")}
        try:
            self.on_step(state.global_step, state.max_steps, "step", said)
        except Stopped as error:
            self.stopped = error
            control.should_training_stop = True
            control.should_save = isinstance(error, WorkerStopping)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        self.on_checkpoint(folder, state.global_step)

    def raise_if_stopped(self) -> None:
        if self.stopped:
            raise self.stopped


class _Trainer(Trainer):
    """The Trainer, which here stops at a loss that is no number, and measures its speed."""

    tokens = 0
    since = 0.0

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        self.since = self.since or time.monotonic()
        self.tokens += int(inputs["attention_mask"].sum())
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._check_finite(float(loss), str(float(loss)), self.state.global_step + 1)
        return loss

    def _check_finite(self, value: float, said: str, step: int) -> None:
        """Raises NonFiniteLoss."""
        if not math.isfinite(value):
            raise NonFiniteLoss(step=step, loss=said, checkpoint=self._last_step())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # before the step's checkpoint is saved
            said = f"finite, but its gradient's norm is {logs['grad_norm']}"
            self._check_finite(float(logs["grad_norm"]), said, self.state.global_step)
            elapsed = time.monotonic() - self.since
            logs["tokens_per_s"] = self.tokens / elapsed if elapsed else 0.0
            self.tokens, self.since = 0, time.monotonic()
        super().log(logs, start_time)

    def _last_step(self) -> str:
        found = _last(Path(str(self.args.output_dir)).parent)
        return f"step {_step_of(found)}" if found else "the start"


def _trainer(
    model: PeftModel, given: TrainInput, work: Path, batch: tuple[int, int], told: _Told
) -> _Trainer:
    recipe = given.recipe
    arguments = TrainingArguments(
        output_dir=str(work / CHECKPOINTS),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=batch[0],
        gradient_accumulation_steps=batch[1],
        weight_decay=recipe.weight_decay,
        warmup_steps=recipe.warmup_steps,
        seed=recipe.seed,
        data_seed=recipe.seed,
        activation_checkpointing=recipe.gradient_checkpointing,
        bf16=given.model.dtype == torch.bfloat16,
        use_cpu=given.model.device.type == "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=recipe.checkpoint_steps,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=_Rows(given.rows.rows),
        data_collator=lambda rows: _inputs(rows, given.pad_id),
        callbacks=[told],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _inputs(rows: Sequence[Encoded], pad_id: int) -> dict[str, Tensor]:
    batch = stack(rows, pad_id)
    return {"input_ids": batch.ids, "attention_mask": batch.attention, "labels": batch.labels}


def _last(work: Path) -> str | None:
    """The last checkpoint that is whole; the Trainer writes its own state last, so one without was
    cut off, and is taken away."""
    folder = work / CHECKPOINTS
    while folder.is_dir():
        found: str | None = get_last_checkpoint(str(folder))  # type: ignore[no-untyped-call] # theirs
        if found is None or (Path(found) / TRAINER_STATE_NAME).is_file():
            return found
        shutil.rmtree(found)
    return None


def _step_of(checkpoint: str) -> int:
    return int(checkpoint.rpartition("-")[2])


def _told_of(trainer: _Trainer, model: PeftModel, resumed: int | None) -> Training:
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Training(
        steps=trainer.state.global_step,
        epochs=float(trainer.state.epoch or 0.0),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        resumed_from=resumed,
        curve=[
            TrainedStep(
                int(entry["step"]), entry["loss"], entry["learning_rate"], entry["tokens_per_s"]
            )
            for entry in history
        ],
    )
