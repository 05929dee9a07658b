"""LoRA on parameters (PEFT's `target_parameters`): one module for each expert of a 3-D parameter.

PEFT's `ParamWrapper` stores `A` as `(E * r, d_in)`, expert by expert, and `B` as `(d_out, r * E)`,
in which expert `e` has the columns `e, e + E, ...`. Several parameters of one module are nested in
the order in which the model defines them: the first is innermost, so its key has the most
`.base_layer`. Known are the experts and routers that transformers builds as in `EXPERT_PARAMETERS`;
`preflight` holds their shapes against the models.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE, Part, TensorEntry
from app.domain.architecture import EXPERT_PARAMETERS, EXPERTS, ROUTER, expert_of
from app.domain.errors import ConfigRefused, TensorRefused, UnsupportedAdapter
from app.intake.names import shown

FIELD = "target_parameters"
BASE_LAYER = ".base_layer"
MAX_EXPERTS = 1_024  # of one parameter; real models have up to 512
MAX_MODULES = 65_536  # of one adapter; 61 layers of 384 experts with two parameters are 46,848


class Wrapped(NamedTuple):
    """What a LoRA in the file adapts."""

    parameter: str  # PEFT resolves patterns by it; of a linear module the module itself
    module: str
    has_experts: bool


def check_targets(targets: tuple[str, ...]) -> None:
    """Raises UnsupportedAdapter naming a parameter of which we do not know how it is laid out."""
    for target in targets:
        module, _, parameter = target.rpartition(".")
        if parameter in EXPERT_PARAMETERS and _ends(module) in ("", EXPERTS):
            continue
        if parameter != "weight" or _ends(module) != ROUTER:
            raise UnsupportedAdapter(
                feature=f"LoRA on parameters other than experts and routers ({shown(target)})",
                where=f"{CONFIG_FILE}, field {FIELD}",
                hint="adapt linear modules instead",
            )


def wrapped(name: str, tensor: str, depths: Mapping[str, int], targets: tuple[str, ...]) -> Wrapped:
    """What a module's name in the file means; `depths` has how often each module is wrapped, and
    `tensor` is one of its own, for messages.

    Raises UnsupportedAdapter, ConfigRefused where the configuration does not tell.
    """
    module, depth = unwrapped(name)
    parameters = [f"{module}.{each}" for each in _of(module)]
    parameters = [each for each in parameters if _is_targeted(each, targets)]
    if not parameters:
        return _linear(tensor, module, depth)
    if depths[module] != len(parameters):
        reason = (
            f"names {len(parameters)} parameters of {module}, {WEIGHTS_FILE} has {depths[module]}"
        )
        raise ConfigRefused(field=FIELD, reason=reason)
    parameter = parameters[len(parameters) - 1 - depth]
    if _ends(module) == ROUTER:
        return Wrapped(parameter, module, has_experts=False)
    return Wrapped(parameter, parameter, has_experts=True)


def depths_of(names: Mapping[str, object]) -> Mapping[str, int]:
    """By module: how many wrappers the file has around it."""
    depths: dict[str, int] = {}
    for name in names:
        module, depth = unwrapped(name)
        depths[module] = max(depths.get(module, 0), depth + 1)
    return depths


def unwrapped(name: str) -> tuple[str, int]:
    """The wrapped module, and how many wrappers are around this one."""
    module = name
    while module.endswith(BASE_LAYER):
        module = module.removesuffix(BASE_LAYER)
    return module, (len(name) - len(module)) // len(BASE_LAYER)


def experts(a: TensorEntry, b: TensorEntry, rank: int) -> Iterator[tuple[TensorEntry, TensorEntry]]:
    """The factors of each expert, `(r, d_in)` and `(d_out, r)`. Raises TensorRefused."""
    rows = a.shape[0]
    if not rows or rows % rank:
        _refuse(a, f"its {rows} rows are not a multiple of the rank {rank}")
    if b.shape[1] != rows:
        _refuse(b, f"it has {b.shape[1]} columns, lora_A has {rows} rows")
    count = rows // rank
    if count > MAX_EXPERTS:
        _refuse(a, f"it is of {count} experts, over the limit of {MAX_EXPERTS}")
    shape_a, shape_b = (rank, a.shape[1]), (b.shape[0], rank)
    for index in range(count):  # built, not replaced, because there are up to MAX_MODULES
        yield (
            TensorEntry(a.name, a.dtype, shape_a, a.begin, a.end, Part(0, index, count)),
            TensorEntry(b.name, b.dtype, shape_b, b.begin, b.end, Part(1, index, count)),
        )


def _linear(tensor: str, module: str, depth: int) -> Wrapped:
    if depth:
        raise UnsupportedAdapter(
            feature="LoRA on several parameters of one module",
            where=f"{WEIGHTS_FILE}, tensor {tensor}",
            hint=f"name experts in {FIELD}, or train plain LoRA on linear modules",
        )
    if expert_of(module):
        raise UnsupportedAdapter(
            feature="a linear module with the name of an expert",
            where=f"{WEIGHTS_FILE}, tensor {tensor}",
            hint=f"name the experts in {FIELD}",
        )
    return Wrapped(module, module, has_experts=False)


def _of(module: str) -> tuple[str, ...]:
    """The parameters of a module that we know, in the order in which the model defines them."""
    return {EXPERTS: EXPERT_PARAMETERS, ROUTER: ("weight",)}.get(_ends(module), ())


def _is_targeted(parameter: str, targets: tuple[str, ...]) -> bool:
    return f".{parameter}".endswith(_suffixes(targets))


@lru_cache(maxsize=4)  # because it is asked for each module of a file, with the same targets
def _suffixes(targets: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f".{target}" for target in targets)


def _ends(module: str) -> str:
    return module.rpartition(".")[2]


def _refuse(tensor: TensorEntry, reason: str) -> None:
    raise TensorRefused(tensor=tensor.name, reason=reason)
