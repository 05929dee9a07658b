"""What to do to an adapter: Safe LoRA (arXiv 2405.16833) or a baseline, on selected modules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from app.domain.errors import InvalidField

MethodName = Literal["safe_lora", "scale", "prune", "salora"]
ProjectorName = Literal["approximate", "exact", "subspace", "complement"]
SelectBy = Literal["threshold", "count", "fraction", "all"]
Rescale = Literal["none", "preserve_norm"]
FullWeights = Literal["keep", "drop", "project"]

METHODS: tuple[MethodName, ...] = get_args(MethodName)
PROJECTORS: tuple[ProjectorName, ...] = get_args(ProjectorName)
SELECTIONS: tuple[SelectBy, ...] = get_args(SelectBy)
RESCALES: tuple[Rescale, ...] = get_args(Rescale)
FULL_WEIGHTS: tuple[FullWeights, ...] = get_args(FullWeights)
SUBSPACE_PROJECTORS = ("subspace", "complement")
DEFAULT_ENERGY = 0.9
DEFAULT_THRESHOLD = 0.5  # the official code's default for its `threshold` mode


@dataclass(frozen=True)
class Selection:
    """Which modules are changed, in the order of their cosines (smallest first).

    `threshold`: cosine at or below `value`. `count`: exactly `value` modules, ties by module order.
    `fraction`: the smallest whole number of modules that is at least that share. `all`: every one.
    """

    by: SelectBy = "threshold"
    value: float | None = DEFAULT_THRESHOLD

    def __post_init__(self) -> None:
        _check_choice("select.by", self.by, SELECTIONS)
        reason = _selection_fault(self.by, self.value)
        if reason:
            raise InvalidField(field="select.value", reason=reason)


def one_selection(given: Mapping[str, float | bool]) -> Selection | None:
    """The selection that a name and its value ask for (`all` with anything true), None without one.

    Raises InvalidField naming the parameter, also where two are given.
    """
    if len(given) > 1:
        names = list(given)
        raise InvalidField(field=names[1], reason=f"give one selection, not {' and '.join(names)}")
    for by, value in given.items():
        try:
            return Selection(by, None if by == "all" else value)  # type: ignore[arg-type] # checked
        except InvalidField as error:
            raise InvalidField(field=by, reason=error.facts["reason"]) from None
    return None


def _check_choice(field: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidField(field=field, reason=f"must be one of {', '.join(known)}")


def _selection_fault(by: SelectBy, value: float | None) -> str | None:
    if by == "all":
        return None if value is None else "'all' takes no value"
    if value is None or isinstance(value, bool):
        return f"'{by}' needs a number"
    low, high = {"threshold": (-1.0, 1.0), "count": (0.0, 1e6), "fraction": (0.0, 1.0)}[by]
    if not low <= value <= high:
        return f"'{by}' must lie in [{low:.10g}, {high:.10g}]"
    if by == "count" and value != int(value):
        return "'count' must be a whole number"
    return None


@dataclass(frozen=True)
class Projection:
    """Which `C`: what adapters must share to be projected together, reading `V` once."""

    projector: ProjectorName
    energy: float | None  # of ||V||_F^2, where the projector takes a share
    rank: int | None  # or a number of directions
    safety_module: str | None = None  # Part.id: then `C = I - V_s V_s^T`, and no projector


@dataclass(frozen=True)
class Method:
    """What the selected modules' `B` becomes, and by which projector modules are compared.

    `safe_lora`: `C B` with one of four projectors `C`. `subspace` and `complement` take a share of
    `||V||_F^2` (`energy`, in (0, 1]) or a number of directions (`rank`); the other two leave
    `energy` unused and refuse `rank`. `rescale="preserve_norm"` then brings `||dW||_F` back to what
    it was. `salora`, on a trained adapter ours and not the paper's: `C B` with `C = I - V_s
    V_s^T` of a safety module; no projector and no base model plays a part. The baselines, on the
    same selection: `scale` gives `factor * B`, `prune` gives zero. `full_weights` says what
    becomes of whole parameters that bypass LoRA: with `project` they are compared, selected and
    changed as LoRA modules are, by what they change of the chat model's.
    """

    projector: ProjectorName = "approximate"
    energy: float | None = None
    rank: int | None = None
    select: Selection = Selection()
    name: MethodName = "safe_lora"
    factor: float | None = None
    rescale: Rescale = "none"
    full_weights: FullWeights = "keep"
    safety_module: str | None = None  # Part.id

    def __post_init__(self) -> None:
        _check_choice("name", self.name, METHODS)
        _check_choice("projector", self.projector, PROJECTORS)
        _check_choice("rescale", self.rescale, RESCALES)
        _check_choice("full_weights", self.full_weights, FULL_WEIGHTS)
        self._check_subspace_size()
        self._check_strength()
        self._check_safety_module()

    def _check_subspace_size(self) -> None:
        if self.rank is not None and self.projector not in SUBSPACE_PROJECTORS:
            raise InvalidField(field="rank", reason=f"'{self.projector}' takes no rank")
        if self.energy is not None and self.rank is not None:
            raise InvalidField(field="rank", reason="give energy or rank, not both")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise InvalidField(field="energy", reason="must lie in (0, 1]")
        if self.rank is not None and not 1 <= self.rank <= 1_000_000:
            raise InvalidField(field="rank", reason="must lie in [1, 1000000]")

    def _check_strength(self) -> None:
        if self.rescale != "none" and self.name != "safe_lora":
            raise InvalidField(field="rescale", reason=f"'{self.name}' takes no rescale")
        if self.name != "scale" and self.factor is not None:
            raise InvalidField(field="factor", reason=f"'{self.name}' takes no factor")
        if self.name == "scale" and (self.factor is None or not 0 <= self.factor <= 1):
            raise InvalidField(field="factor", reason="'scale' needs a factor in [0, 1]")

    def _check_safety_module(self) -> None:
        if self.name != "salora":
            if self.safety_module is not None:
                raise InvalidField(field="safety_module", reason=f"'{self.name}' takes none")
            return
        if self.safety_module is None:
            raise InvalidField(field="safety_module", reason="'salora' needs the id of one")
        for field, default in (("projector", "approximate"), ("energy", None), ("rank", None)):
            if getattr(self, field) != default:
                raise InvalidField(field=field, reason=f"'salora' takes no {field}")

    @property
    def needs_base(self) -> bool:
        """Whether modules are compared with what base and chat model differ by."""
        return self.name != "salora"

    @property
    def projection(self) -> Projection:
        return Projection(self.projector, self.resolved_energy, self.rank, self.safety_module)

    @property
    def resolved_energy(self) -> float | None:
        """The share of `||V||_F^2` to hold, where the projector takes one and no rank was given."""
        if self.projector not in SUBSPACE_PROJECTORS or self.rank is not None:
            return None
        return DEFAULT_ENERGY if self.energy is None else self.energy
