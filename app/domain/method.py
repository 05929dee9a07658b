"""What to do to an adapter: Safe LoRA's projector and selection (arXiv 2405.16833)."""

from dataclasses import dataclass
from typing import Literal, get_args

from app.domain.errors import InvalidField

ProjectorName = Literal["approximate", "exact", "subspace", "complement"]
SelectBy = Literal["threshold", "count", "fraction", "all"]

PROJECTORS: tuple[ProjectorName, ...] = get_args(ProjectorName)
SELECTIONS: tuple[SelectBy, ...] = get_args(SelectBy)
SUBSPACE_PROJECTORS = ("subspace", "complement")
DEFAULT_ENERGY = 0.9
DEFAULT_THRESHOLD = 0.5  # the official code's default for its `threshold` mode


@dataclass(frozen=True)
class Selection:
    """Which modules are projected, in the order of their cosines (smallest first).

    `threshold`: cosine at or below `value`. `count`: exactly `value` modules, ties by module order.
    `fraction`: the smallest whole number of modules that is at least that share. `all`: every one.
    """

    by: SelectBy = "threshold"
    value: float | None = DEFAULT_THRESHOLD

    def __post_init__(self) -> None:
        if self.by not in SELECTIONS:
            raise InvalidField(field="select.by", reason=f"must be one of {', '.join(SELECTIONS)}")
        reason = _selection_fault(self.by, self.value)
        if reason:
            raise InvalidField(field="select.value", reason=reason)


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
class SafeLora:
    """Safe LoRA with one of four projectors.

    `subspace` and `complement` take a share of `||V||_F^2` (`energy`, in (0, 1]) or a number of
    directions (`rank`); the other two leave `energy` unused and refuse `rank`.
    """

    projector: ProjectorName = "approximate"
    energy: float | None = None
    rank: int | None = None
    select: Selection = Selection()
    name: Literal["safe_lora"] = "safe_lora"

    def __post_init__(self) -> None:
        if self.projector not in PROJECTORS:
            raise InvalidField(field="projector", reason=f"must be one of {', '.join(PROJECTORS)}")
        self._check_subspace_size()

    def _check_subspace_size(self) -> None:
        if self.rank is not None and self.projector not in SUBSPACE_PROJECTORS:
            raise InvalidField(field="rank", reason=f"'{self.projector}' takes no rank")
        if self.energy is not None and self.rank is not None:
            raise InvalidField(field="rank", reason="give energy or rank, not both")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise InvalidField(field="energy", reason="must lie in (0, 1]")
        if self.rank is not None and not 1 <= self.rank <= 1_000_000:
            raise InvalidField(field="rank", reason="must lie in [1, 1000000]")

    @property
    def resolved_energy(self) -> float | None:
        """The share of `||V||_F^2` to hold, where the projector takes one and no rank was given."""
        if self.projector not in SUBSPACE_PROJECTORS or self.rank is not None:
            return None
        return DEFAULT_ENERGY if self.energy is None else self.energy
