"""The families of a frontier as adapters: each step's tensors, from the real patch of each family.

Every family is patched once, with all modules selected; a step takes what the patch made of the
first modules in the order of their cosines, which is byte for byte what a patch job that selects so
many writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from app.alignment.dora import weight_norms
from app.alignment.replacement import replaced, replaced_magnitude
from app.domain.adapter import LoraModule
from app.domain.evaluation import FamilyName, FrontierRecipe
from app.domain.method import DEFAULT_THRESHOLD, SUBSPACE_PROJECTORS, Method, Selection
from app.domain.report import Report
from app.jobs.search import Setting
from workers.checkpoints import ModelPair, open_pair
from workers.measure.switch import LoadedAdapter, Tensors, tensors_of
from workers.pipeline import OnModule, Shelves, patch
from workers.run import PatchInput

ALL = Selection("all", None)
DEFAULT: FamilyName = "approximate"


@dataclass(frozen=True)
class Family:
    """One path from the adapter as it came to every module changed."""

    method: Method  # of its last step; `scale` has the one of `prune`
    order: Sequence[str]  # modules with a cosine, smallest first
    below_default: int  # of which so many are at or below the published threshold
    patched: Tensors


@dataclass(frozen=True)
class Scaling:
    """What a patch scales one module with."""

    dtype: torch.dtype  # in which it computes
    chat_norms: Tensor | None  # (d_out,) float64, to which a DoRA's magnitude returns

    def columns(self, before: Tensor, method: Method) -> Tensor:
        return replaced(before, before.to(self.dtype), 0.0, method).to(before.dtype)

    def magnitude(self, before: Tensor, method: Method) -> Tensor:
        assert self.chat_norms is not None  # noqa: S101 because the module has a magnitude
        return replaced_magnitude(before, self.chat_norms, method).to(before.dtype)


@dataclass(frozen=True)
class Paths:
    """All families' of one adapter."""

    adapter: LoadedAdapter
    families: Mapping[FamilyName, Family]
    scaled_in: Mapping[str, Scaling]  # by module, where `scale` is a family

    @property
    def steps(self) -> int:
        """Modules that can be changed: where families differ, of the one with most."""
        return max(len(family.order) for family in self.families.values())

    @property
    def default(self) -> Setting | None:
        """The published one: the approximate projector, at or below the threshold."""
        family = self.families.get(DEFAULT)
        return Setting(DEFAULT, family.below_default) if family else None

    def method(self, setting: Setting) -> Method:
        """As a patch job takes it."""
        method = self.families[setting.family].method
        if setting.family == "scale":
            return replace(method, name="scale", factor=self._factor(setting))
        return replace(method, select=Selection("count", float(self._count(setting))))

    def tensors(self, setting: Setting) -> Tensors:
        """The adapter's, as that method leaves them."""
        family = self.families[setting.family]
        if setting.family != "scale":
            chosen = self._modules(set(family.order[: self._count(setting)]))
            return self.adapter.mixed(family.patched, chosen)
        modules = self._modules(set(family.order))
        return self.adapter.mixed(self._scaled(modules, self.method(setting)), modules)

    def _scaled(self, modules: Sequence[LoraModule], method: Method) -> Tensors:
        """By the arithmetic of a patch, so that the last bit is the same."""
        own, scaled = self.adapter.tensors, dict[str, Tensor]()
        for module in modules:
            by = self.scaled_in[module.name]
            for entry in filter(None, (module.lora_b, module.bias)):
                if entry.name not in scaled:  # because experts share one
                    scaled[entry.name] = by.columns(own[entry.name], method)
            if module.magnitude:
                scaled[module.magnitude.name] = by.magnitude(own[module.magnitude.name], method)
        return scaled

    def _modules(self, names: set[str]) -> list[LoraModule]:
        return [module for module in self.adapter.manifest.modules if module.name in names]

    def _count(self, setting: Setting) -> int:
        return min(setting.step, len(self.families[setting.family].order))

    def _factor(self, setting: Setting) -> float:
        return 1 - setting.step / self.steps


def make_paths(
    given: PatchInput,
    recipe: FrontierRecipe,
    work: Path,
    *,
    threads: int,
    on_module: OnModule,
    shelves: Shelves | None,
) -> Paths:
    """Patch the adapter once in each family; `given.method` plays no part. Raises what `patch` and
    `on_module` raise."""
    adapter = LoadedAdapter.read(given.folder, given.manifest)
    families: dict[FamilyName, Family] = {}
    for name in recipe.families:
        method = family_method(name, recipe)
        out = work / name
        out.mkdir()
        family = replace(given, method=method)
        report = patch(family, out, threads=threads, on_module=on_module, shelves=shelves)
        families[name] = _family(method, report, tensors_of(out))
    return Paths(adapter, families, _scaled_in(given) if "scale" in families else {})


def _scaled_in(given: PatchInput) -> dict[str, Scaling]:
    chat, base = given.chat.checkpoint, (given.base or given.chat).checkpoint
    with open_pair(chat, base) as models:
        return {module.name: _scaling(module, models) for module in given.manifest.modules}


def _scaling(module: LoraModule, models: ModelPair) -> Scaling:
    dtype = models.difference(module).work_dtype
    if module.magnitude is None:
        return Scaling(dtype, None)
    weight, transposed = models.chat.weight(module.name), models.is_transposed(module)
    return Scaling(dtype, weight_norms(weight, transposed=transposed))


def family_method(name: FamilyName, recipe: FrontierRecipe) -> Method:
    """With every module selected; of `scale` that of `prune`, which is its other end."""
    if name == "salora":
        return Method(name="salora", safety_module=recipe.safety_module, select=ALL)
    if name in ("scale", "prune"):
        return Method(name="prune", select=ALL)
    energy = recipe.energy if name in SUBSPACE_PROJECTORS else None
    return Method(projector=name, energy=energy, select=ALL)  # type: ignore[arg-type] # one of four


def _family(method: Method, report: Report, patched: Tensors) -> Family:
    scored = [(layer.cosine, i, layer.module) for i, layer in enumerate(report.layers)
              if layer.cosine is not None]  # fmt: skip
    scored.sort()
    below = sum(cosine <= DEFAULT_THRESHOLD for cosine, _, _ in scored)
    return Family(method, [module for _, _, module in scored], below, patched)
