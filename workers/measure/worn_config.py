"""A stranger's configuration -> one that PEFT may run: no pattern that Python's `re` could take
years over.

PEFT matches `target_modules`, `exclude_modules`, `layers_pattern` and the keys of `rank_pattern`
and `alpha_pattern` by `re`. Where one is more than a name, the modules that the file has tensors of
are named one by one instead, each with its own rank and alpha: these the gate has found.
"""

import re
from collections.abc import Iterator, Mapping

from peft import LoraConfig
from transformers import PreTrainedModel

from app.domain.adapter import CONFIG_FILE, AdapterManifest
from app.domain.architecture import expert_of, stored_names
from app.domain.errors import UnsupportedAdapter

Config = Mapping[str, object]
FIELDS = frozenset(LoraConfig.__dataclass_fields__) - {"peft_type", "auto_mapping"}
NAME = re.compile(r"[A-Za-z0-9_.-]*")
EVERY_LINEAR = "all-linear"
NO_CHOICE = {"exclude_modules": None, "layers_to_transform": None, "layers_pattern": None}


def worn_config(manifest: AdapterManifest, model: PreTrainedModel) -> LoraConfig:
    """Without what says how to start: every value is written over. Raises UnsupportedAdapter."""
    if manifest.config.get("bias", "none") != "none":
        raise UnsupportedAdapter(
            feature="biases of the model's own layers (bias)",
            where=CONFIG_FILE,
            hint="PEFT writes them into the model itself, so it cannot be measured beside others",
        )
    given: dict[str, object] = {k: v for k, v in manifest.config.items() if k in FIELDS}
    given |= dict(_named(given, manifest, model))
    given |= {"inference_mode": True, "init_lora_weights": True, "lora_dropout": 0.0}
    return LoraConfig(**given)  # type: ignore[arg-type] # because the gate has checked each field


def _named(
    config: Config, manifest: AdapterManifest, model: PreTrainedModel
) -> Iterator[tuple[str, object]]:
    """What takes the place of patterns."""
    names = module_names(model)
    if _chooses_by_pattern(config):
        modules = [m.name for m in manifest.modules if expert_of(m.name) is None]
        yield "target_modules", [names.get(name, name) for name in modules]
        yield from NO_CHOICE.items()
    if not all(map(NAME.fullmatch, _keys(config))):
        keyed = [(_key(module.name, names), module) for module in manifest.modules]
        yield "rank_pattern", {key: module.rank for key, module in keyed}
        yield "alpha_pattern", {key: module.alpha for key, module in keyed}


def _chooses_by_pattern(config: Config) -> bool:
    chosen = [config.get("target_modules"), config.get("exclude_modules")]
    if any(isinstance(one, str) and one != EVERY_LINEAR for one in chosen):
        return True
    within = config.get("layers_pattern") or []
    listed = within if isinstance(within, list) else [within]
    return not all(NAME.fullmatch(str(one)) for one in listed)


def _keys(config: Config) -> Iterator[str]:
    for field in ("rank_pattern", "alpha_pattern"):
        table = config.get(field)
        yield from table if isinstance(table, dict) else ()


def _key(module: str, names: Mapping[str, str]) -> str:
    """A pattern that matches this module, or parameter, alone."""
    expert = expert_of(module)
    return re.escape(expert.parameter if expert else names.get(module, module))


def module_names(model: PreTrainedModel) -> dict[str, str]:
    """The model's modules by the older names that adapters may have of them."""
    kind = model.config.model_type
    own = [name for name, _ in model.named_modules()]
    older = {old: name for name in own for old in stored_names(kind, name)}
    return older | {name: name for name in own}  # whose own names come first
