"""The tensors of a weights file joined to modules by their names, and held against the config."""

import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from app.domain.adapter import (
    DTYPE_BYTES,
    WEIGHTS_FILE,
    FullWeight,
    LayerType,
    LoraModule,
    TensorEntry,
    module_order,
)
from app.domain.errors import (
    ConfigRefused,
    EmptyAdapter,
    RankMismatch,
    TensorRefused,
    UnsupportedAdapter,
)
from app.intake.lora_config import LoraConfig
from app.intake.names import shown
from app.intake.parameters import MAX_MODULES, Wrapped, depths_of, experts, wrapped
from app.intake.patterns import Patterns
from app.intake.safetensors_header import Header
from app.intake.tensor_keys import (
    LORA_PARTS,
    PREFIX,
    Part,
    TensorKey,
    check_spelling,
    parse_key,
)

Parts = Mapping[Part, TensorEntry]

FACTORS: Mapping[LayerType, tuple[Part, Part]] = {
    "linear": ("A", "B"),
    "embedding": ("embedding_A", "embedding_B"),
}
AXES: Mapping[Part, int] = {"bias": 1, "magnitude": 1}  # the others have two


@dataclass
class _Found:
    """The file's tensors by what their names say."""

    lora: dict[str, dict[Part, TensorEntry]] = field(default_factory=dict)  # by module
    full: list[tuple[TensorKey, TensorEntry]] = field(default_factory=list)


def read_modules(
    header: Header, config: LoraConfig
) -> tuple[tuple[LoraModule, ...], tuple[FullWeight, ...]]:
    """The LoRA modules, in module order, and the full weights, by name.

    Raises EmptyAdapter, UnsupportedAdapter, TensorRefused, RankMismatch, ConfigRefused.
    """
    found = _sorted(header)
    if not found.lora:
        raise EmptyAdapter(file=WEIGHTS_FILE)
    modules = sorted(_modules(found, config), key=lambda module: module_order(module.name))
    full = sorted(_full_weights(found, config), key=lambda weight: module_order(weight.name))
    _check_unused(config, full)
    return tuple(modules), tuple(full)


def _sorted(header: Header) -> _Found:
    """In one spelling, two names never give one place."""
    found, first = _Found(), None
    for tensor in header.tensors:
        key = parse_key(tensor.name)
        _check_dtype(tensor)
        if key.part not in LORA_PARTS:
            found.full.append((key, tensor))
            continue
        first = first or key
        check_spelling(tensor.name, key, first)
        _check_axes(tensor, AXES.get(key.part, 2))
        found.lora.setdefault(key.module, {})[key.part] = tensor
    return found


def _check_dtype(tensor: TensorEntry) -> None:
    if tensor.dtype not in DTYPE_BYTES:
        raise UnsupportedAdapter(
            feature=f"the dtype {tensor.dtype}",
            where=f"{WEIGHTS_FILE}, tensor {tensor.name}",
            hint=f"save it as one of {', '.join(DTYPE_BYTES)}",
        )


def _check_axes(tensor: TensorEntry, axes: int) -> None:
    if len(tensor.shape) != axes:
        reason = f"it should have {axes} axes, and has shape {list(tensor.shape)}"
        raise TensorRefused(tensor=tensor.name, reason=reason)


# ------------------------------------------------------------------------------------------ modules
def _modules(found: _Found, config: LoraConfig) -> list[LoraModule]:
    ranks = Patterns(config.rank_pattern, "rank_pattern")
    alphas = Patterns(config.alpha_pattern, "alpha_pattern")
    depths, modules = depths_of(found.lora), list[LoraModule]()
    for name, parts in found.lora.items():
        tensor = next(iter(parts.values())).name
        means = wrapped(name, tensor, depths, config.target_parameters)
        rank = ranks.resolve(means.parameter, config.r)
        alpha = alphas.resolve(means.parameter, config.lora_alpha)
        for module, own in _split(means, parts, rank):
            modules.append(_module(module, own, config, rank=rank, alpha=alpha))
        if len(modules) > MAX_MODULES:
            reason = f"with it the adapter has more than {MAX_MODULES} modules"
            raise TensorRefused(tensor=tensor, reason=reason)
    return modules


def _split(means: Wrapped, parts: Parts, rank: int) -> Iterator[tuple[str, Parts]]:
    """A linear module as it is; of a parameter with experts one module for each."""
    if not means.has_experts:
        yield means.module, parts
        return
    a, b = (_factor(means.parameter, parts, side) for side in FACTORS["linear"])
    for part in parts.keys() - {"A", "B"}:
        raise TensorRefused(tensor=parts[part].name, reason="PEFT has none on a parameter's LoRA")
    for index, (own_a, own_b) in enumerate(experts(a, b, rank)):
        yield f"{means.parameter}.{index}", {"A": own_a, "B": own_b}


def _module(name: str, parts: Parts, config: LoraConfig, *, rank: int, alpha: float) -> LoraModule:
    layer_type: LayerType = "linear" if parts.keys() & {"A", "B"} else "embedding"
    for part, tensor in parts.items():
        if part not in (*FACTORS[layer_type], *_VECTORS):
            reason = f"module {name} has LoRA factors of an embedding and of a linear layer"
            raise TensorRefused(tensor=tensor.name, reason=reason)
    a, b = (_factor(name, parts, side) for side in FACTORS[layer_type])
    for tensor, found in ((a, a.shape[0]), (b, b.shape[1])):
        if found != rank:
            raise RankMismatch(module=name, tensor=tensor.name, expected=rank, found=found)
    return LoraModule(
        name=name,
        rank=rank,
        alpha=alpha,
        scaling=alpha / (math.sqrt(rank) if config.use_rslora else rank),
        lora_a=a,
        lora_b=b,
        layer_type=layer_type,
        # PEFT has no bias on an embedding's factors, whatever the configuration says
        bias=_vector(name, parts, "bias", config.lora_bias and layer_type == "linear", b.shape[0]),
        magnitude=_vector(name, parts, "magnitude", config.use_dora, b.shape[0]),
    )


def _factor(name: str, parts: Parts, part: Part) -> TensorEntry:
    if part not in parts:
        alone = next(iter(parts.values()))
        raise TensorRefused(tensor=alone.name, reason=f"module {name} lacks its other LoRA factor")
    return parts[part]


_VECTORS: Mapping[Part, tuple[str, str]] = {
    "bias": ("lora_bias", "lora_B.bias"),
    "magnitude": ("use_dora", "lora_magnitude_vector"),
}


def _vector(name: str, parts: Parts, part: Part, expected: bool, d_out: int) -> TensorEntry | None:
    """A module's bias or magnitude, which all modules have, or none."""
    flag, key = _VECTORS[part]
    tensor = parts.get(part)
    if tensor is None:
        if expected:
            raise ConfigRefused(field=flag, reason=f"is true, but module {name} has no {key}")
        return None
    if not expected:
        reason = f"the configuration has no {flag}, so nothing would read it"
        raise TensorRefused(tensor=tensor.name, reason=reason)
    if tensor.shape != (d_out,):
        reason = f"its shape is {list(tensor.shape)}, the module's output has {d_out} elements"
        raise TensorRefused(tensor=tensor.name, reason=reason)
    return tensor


# ------------------------------------------------------------------------------------- full weights
def _full_weights(found: _Found, config: LoraConfig) -> Iterator[FullWeight]:
    for key, tensor in found.full:
        name = _parameter(key, tensor)
        tokens = _trained(key.module, config) if key.part == "tokens" else None
        feature = _feature(key, tensor, name, config, found.lora.keys(), tokens)
        if feature is None:
            reason = (
                "it is a full weight that no field of the configuration asks for (PEFT would load "
                "it all the same)"
            )
            raise TensorRefused(tensor=tensor.name, reason=reason)
        yield FullWeight(name, tensor, feature, tokens or ())


def _parameter(key: TensorKey, tensor: TensorEntry) -> str:
    """The model's name of the parameter that the tensor replaces."""
    if key.part == "tokens":
        return f"{key.module}.weight"
    return tensor.name.removeprefix(PREFIX).replace(".base_layer.", ".")


def _feature(
    key: TensorKey,
    tensor: TensorEntry,
    name: str,
    config: LoraConfig,
    adapted: Set[str],
    tokens: tuple[int, ...] | None,
) -> str | None:
    """The field of the configuration that put a full weight into the file."""
    if key.part == "tokens":
        return "trainable_token_indices" if _fits_tokens(tensor, tokens) else None
    if _is_saved(key.module, config.modules_to_save):
        return "modules_to_save"
    if name.endswith(".bias") and config.bias != "none":
        return "bias"
    if tensor.name.endswith(".base_layer.weight") and key.module in adapted:
        return "save_embedding_layers"  # of save_pretrained, which the configuration does not keep
    return None


def _fits_tokens(tensor: TensorEntry, tokens: tuple[int, ...] | None) -> bool:
    """Raises ConfigRefused where the tensor has other rows than the configuration names tokens."""
    if tokens is not None and (len(tensor.shape) != 2 or tensor.shape[0] != len(tokens)):
        reason = f"names {len(tokens)} tokens, {tensor.name} has shape {list(tensor.shape)}"
        raise ConfigRefused(field="trainable_token_indices", reason=reason)
    return tokens is not None


def _trained(module: str, config: LoraConfig) -> tuple[int, ...] | None:
    """The tokens that are trained in a layer, by the layer's name or the end of it."""
    ends = (rows for name, rows in config.tokens.items() if module.endswith(name))
    return next(ends, None)


def _is_saved(module: str, names: tuple[str, ...]) -> bool:
    """Whether the module is one of those, or inside one: by the ends of names, as PEFT does it
    (`peft.utils.other._set_trainable`), where `norm` also means `input_layernorm`."""
    return any(path.endswith(names) for path in _around(module))


def _around(module: str) -> Iterator[str]:
    """The modules that it is inside, outermost first, and itself."""
    parts = module.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _check_unused(config: LoraConfig, full: list[FullWeight]) -> None:
    """A field that asks for full weights which the file lacks would leave PEFT with untrained or
    random ones; without any trained tokens it does not load at all."""
    if any(config.tokens.values()) and not any(weight.tokens for weight in full):
        reason = f"names tokens, of which {WEIGHTS_FILE} holds none"
        raise ConfigRefused(field="trainable_token_indices", reason=reason)
    unused = config.modules_to_save
    for path in (path for weight in full for path in _around(weight.name.rpartition(".")[0])):
        if path.endswith(unused):
            unused = tuple(name for name in unused if not path.endswith(name))
    for name in unused:
        reason = f"names {shown(name)}, which {WEIGHTS_FILE} does not hold"
        raise ConfigRefused(field="modules_to_save", reason=reason)
