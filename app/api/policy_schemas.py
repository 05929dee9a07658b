"""A policy file's contents. As in requests, what is not known is refused, so that a typing error is
told; and method and gate are those of a job's body."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from pydantic import Field, StrictBool

from app.api.job_schemas import MethodIn
from app.api.measure_schemas import GateIn
from app.api.schemas import ModelId, Number, RequestBody
from app.domain.access import DEFAULT_TENANT, check_tenant
from app.domain.errors import InvalidField
from app.domain.evaluation import GateRecipe
from app.domain.method import Method
from app.domain.policy import (
    VERDICTS,
    ActionKind,
    Pair,
    Policy,
    Repositories,
    Thresholds,
    VerdictName,
    check_actions,
)

MAX_ITEMS = 1000  # of a list; a hub's operator writes them by hand
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=MAX_ITEMS)]
Actions = Annotated[tuple[ActionKind, ...], Field(max_length=10)]


@contextmanager
def _at(place: str) -> Iterator[None]:
    try:
        yield
    except InvalidField as error:
        field = f"{place}.{error.facts['field']}"
        raise InvalidField(field=field, reason=error.facts["reason"]) from None


class RepositoriesIn(RequestBody):
    include: Annotated[Patterns, Field(min_length=1)]
    exclude: Patterns = ()
    branches: Annotated[Patterns, Field(min_length=1)] = ("main",)

    def to_domain(self) -> Repositories:
        return Repositories(self.include, self.exclude, self.branches)


class PairIn(RequestBody):
    match: Pattern
    base: ModelId | None = None
    chat: ModelId

    def to_domain(self, place: str, method: Method) -> Pair:
        """Raises InvalidField naming `<place>.<field>`."""
        with _at(place):
            if self.base is None and method.needs_base:
                raise InvalidField(field="base", reason=f"is missing: '{method.name}' needs one")
            return Pair(self.match, self.base, self.chat)


class ThresholdsIn(RequestBody):
    max_projected_fraction: Number = Thresholds.max_projected_fraction
    min_median_retained_energy: Number = Thresholds.min_median_retained_energy
    min_kept_pdst: Number = Thresholds.min_kept_pdst

    def to_domain(self) -> Thresholds:
        """Raises InvalidField naming `thresholds.<field>`."""
        with _at("thresholds"):
            return Thresholds(
                self.max_projected_fraction, self.min_median_retained_energy, self.min_kept_pdst
            )


class ActionsIn(RequestBody):
    """By verdict; nothing where one is left out."""

    pass_: Actions = Field(default=(), alias="pass")
    patched: Actions = ()
    review: Actions = ()
    inconclusive: Actions = ()
    refused: Actions = ()

    def to_domain(self) -> dict[VerdictName, tuple[ActionKind, ...]]:
        """Raises InvalidField naming `actions.<verdict>`."""
        given: dict[VerdictName, tuple[ActionKind, ...]] = {}
        for verdict in VERDICTS:
            given[verdict] = getattr(self, "pass_" if verdict == "pass" else verdict)
            check_actions(verdict, given[verdict])
        return given


class PolicyIn(RequestBody):
    """The whole file."""

    version: Literal[1]
    tenant: str = DEFAULT_TENANT
    dry_run: StrictBool = False
    repositories: RepositoriesIn
    pairs: Annotated[tuple[PairIn, ...], Field(min_length=1, max_length=MAX_ITEMS)]
    method: MethodIn = MethodIn()
    require: Literal["no_worse"] | None = None
    gate: GateIn | None = None
    thresholds: ThresholdsIn = ThresholdsIn()
    actions: ActionsIn = ActionsIn()

    def to_domain(self, version: str) -> Policy:
        """Raises InvalidField."""
        method = self.method.to_domain()
        _check_selects(method)
        pairs = (pair.to_domain(f"pairs[{i}]", method) for i, pair in enumerate(self.pairs))
        return Policy(
            version=version,
            tenant=check_tenant(self.tenant),
            dry_run=self.dry_run,
            repositories=self.repositories.to_domain(),
            pairs=tuple(pairs),
            method=method,
            gate=self._gate(),
            thresholds=self.thresholds.to_domain(),
            actions=self.actions.to_domain(),
        )

    def _gate(self) -> GateRecipe | None:
        """Raises InvalidField."""
        if self.gate is None and self.require is not None:
            raise InvalidField(field="gate", reason="is missing: what is required is measured")
        if self.gate is not None and self.require is None:
            raise InvalidField(field="require", reason="is missing: a gate needs one")
        return self.gate.to_domain() if self.gate else None


def _check_selects(method: Method) -> None:
    """A selection that takes no module whatever it finds would let everything pass."""
    select = method.select
    lowest = -1 if select.by == "threshold" else 0
    if select.value is not None and select.value <= lowest:
        reason = f"'{select.by}' {select.value:g} selects nothing, so everything would pass"
        raise InvalidField(field="method.select.value", reason=reason)
