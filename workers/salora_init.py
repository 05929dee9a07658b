"""A safety module, with or without a task's data -> a kit that a training starts from."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from app.alignment.activations import weight_of
from app.alignment.blocks import torch_threads
from app.alignment.kit import Kit, KitModule, probe
from app.alignment.lora import LoraPair, update_norm
from app.alignment.safety_module import SafetyModule
from app.alignment.salora_start import Start, start, zero_start
from app.domain.adapter import README_FILE, kind_of, layer_of
from app.domain.dataset import Row
from app.domain.salora import InitRecipe, PartModule, kit_facts, part_id
from app.domain.salora_errors import TargetsRefused
from app.domain.salora_report import SaloraReport, StartRow
from workers.compute import Compute
from workers.encoding import EncodedSet, encode_all
from workers.language_models import find_targets, load_model, load_tokenizer, tokenizer_digest
from workers.peft_folder import Settings, write_adapter
from workers.run import NamedCheckpoint
from workers.safety_module import (
    MadePart,
    data_use,
    data_warnings,
    ordered,
    settings_of,
    versions,
    write_report,
)
from workers.same_model import check_digest
from workers.sweeping import OnStep, Swept, sweep

NO_TASK_DATA = (
    "No task data was given: B0 is not projected on a task's subspace (V_t is left out), which the "
    "paper does."
)


@dataclass(frozen=True)
class InitInput:
    chat: NamedCheckpoint
    safety: SafetyModule
    task: Iterable[Row] | None
    recipe: InitRecipe


def make_kit(given: InitInput, out: Path, compute: Compute, on_step: OnStep) -> MadePart:
    """Write the kit and its report into the folder `out`.

    Raises KitOfAnotherModel, TargetsRefused, and what `make_safety_module` raises.
    """
    check_digest("safety module", given.safety.made_of, given.chat)
    task = None
    if given.task is not None:
        task = encode_all(given.task, load_tokenizer(given.chat), given.recipe.encoding)
    with torch_threads(compute.threads):
        model = load_model(given.chat, given.recipe.dtype, compute.device)
        targets = ordered(find_targets(model, list(given.safety.bases)))
        _check_rows(given.safety, targets)
        swept = sweep(model, targets, task, given.recipe.task_rank, on_step) if task else None
        built = _Built(given, targets, swept)
        starts = dict(built.starts(on_step))
    return built.write(starts, task, out)


def _check_rows(safety: SafetyModule, targets: Mapping[str, nn.Module]) -> None:
    """Each target has a `V_s` of its outputs. Raises TargetsRefused."""
    rows = {name: weight_of(module).shape[0] for name, module in targets.items()}
    known = {name: basis.shape[0] for name, basis in safety.bases.items()}
    odd = [name for name in {**known, **rows} if known.get(name) != rows.get(name)]
    if odd:
        reason = "the safety module has no V_s of the outputs of such a module"
        raise TargetsRefused(modules=odd, reason=reason)


@dataclass(frozen=True)
class _Built:
    given: InitInput
    targets: Mapping[str, nn.Module]
    swept: Swept | None

    def starts(self, on_step: OnStep) -> Iterator[tuple[str, Start]]:
        """`A0` and `B0` of each module; of the zero initialisation `A`, and a `B` of zero."""
        recipe = self.given.recipe
        for i, (name, module) in enumerate(self.targets.items(), 1):
            weight = weight_of(module)
            rank = min(recipe.rank, *weight.shape)
            if recipe.initialisation == "zero":
                yield name, zero_start(weight, rank, seed=i)
            else:
                yield name, start(weight, rank, self._task_basis(name))
            on_step(i, len(self.targets), "module", {"module": name, "rank": rank})

    def _task_basis(self, name: str) -> Tensor | None:
        return None if self.swept is None else self.swept.subspaces[name].basis

    def write(self, starts: Mapping[str, Start], task: EncodedSet | None, out: Path) -> MadePart:
        recipe, chat = self.given.recipe, self.given.chat
        made_of = kit_facts(recipe, chat.checkpoint.digest, tokenizer_digest(chat))
        self._kit(starts, made_of).save(out)
        write_adapter({name: (s.a, s.b) for name, s in starts.items()}, self.settings, out)
        report = self._report(starts, task, part_id(made_of))
        write_report(report, out)
        (out / README_FILE).write_bytes(_readme(chat.id, part_id(made_of)).encode())
        modules = tuple(PartModule(r.module, *r.shape, r.rank) for r in report.modules)
        return MadePart(part_id(made_of), modules, made_of, report)

    @property
    def settings(self) -> Settings:
        recipe = self.given.recipe
        scaling = recipe.resolved_alpha / (recipe.rank**0.5 if recipe.use_rslora else recipe.rank)
        transposed = any(type(module).__name__ == "Conv1D" for module in self.targets.values())
        return Settings(scaling, recipe.use_rslora, self.given.chat.id, transposed)

    def _kit(self, starts: Mapping[str, Start], made_of: Mapping[str, object]) -> Kit:
        zero = self.given.recipe.initialisation == "zero"
        config = {
            "id": part_id(made_of),
            "made_of": made_of,
            "chat_model": {"id": self.given.chat.id, "digest": self.given.chat.checkpoint.digest},
            "scaling": self.settings.scaling,
            "use_rslora": self.settings.use_rslora,
            "weights": str(weight_of(next(iter(self.targets.values()))).dtype),
            "ranks": {name: s.a.shape[0] for name, s in starts.items()},
        }
        modules = {
            name: KitModule(
                self.given.safety.bases[name],
                probe(weight_of(self.targets[name])),
                None if zero else Start(found.a.cpu(), found.b.cpu()),
            )
            for name, found in starts.items()
        }
        return Kit(config, modules)

    def _report(
        self, starts: Mapping[str, Start], task: EncodedSet | None, part: str
    ) -> SaloraReport:
        recipe = self.given.recipe
        rows = [self._row(name, found) for name, found in starts.items()]
        return SaloraReport(
            kind="salora_init",
            chat_model=self.given.chat.reference,
            settings=settings_of(recipe),
            data=[data_use("task", recipe.dataset or "", task)] if task else [],
            modules=rows,
            warnings=list(self._warnings(rows, task)),
            versions=versions(),
            part=part,
        )

    def _row(self, name: str, found: Start) -> StartRow:
        weight = weight_of(self.targets[name])
        task = None if self.swept is None else self.swept.subspaces[name]
        d_out, d_in = weight.shape
        return StartRow(
            module=name,
            layer=layer_of(name),
            kind=kind_of(name),
            shape=(d_out, d_in),
            rank=found.a.shape[0],
            safety_rank=self.given.safety.bases[name].shape[1],
            task_rank=None if task is None else task.basis.shape[1],
            task_energy=None if task is None else task.energy,
            start_norm=update_norm(LoraPair(found.a, found.b, self.settings.scaling)),
            weight_norm=float(torch.linalg.matrix_norm(weight.double())),
        )

    def _warnings(self, rows: list[StartRow], task: EncodedSet | None) -> Iterator[str]:
        recipe = self.given.recipe
        if task is None and recipe.initialisation == "salora":
            yield NO_TASK_DATA
        smaller = sum(row.rank < recipe.rank for row in rows)
        if smaller:
            yield f"{smaller} of {len(rows)} modules are smaller than rank {recipe.rank}."
        less = sum(row.task_rank is not None and row.task_rank < recipe.task_rank for row in rows)
        if less:
            yield f"The task has fewer than {recipe.task_rank} directions in {less} modules."
        if self.swept:
            yield from self.swept.warnings
        if task:
            yield from data_warnings(task)


def _readme(chat: str, kit: str) -> str:
    return f"""\
# SaLoRA kit for {chat}

Where a SaLoRA training of this chat model starts (arXiv 2501.01765): the adapter folder holds `A0`
and `B0`, `salora.safetensors` the fixed safety module.

**Loaded as an ordinary LoRA it is another model.** Train with it attached, then export:

```python
from app.alignment.salora import attach
model = PeftModel.from_pretrained(chat_model, "kit", is_trainable=True)
attach(model, "kit")
```

```
adapter-safety salora export --kit kit --adapter trained --out exported
```

Kit {kit}
"""
