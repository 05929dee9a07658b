"""Which modules a pre-warm is of: an adapter's, those that were named, or all that both have."""

from collections.abc import Sequence
from typing import Protocol

from app.domain.adapter import StoredModule
from app.domain.alignment import Shaped
from app.domain.checkpoint import Checkpoint
from app.intake.model_modules import named_modules, shared_modules
from app.intake.preflight import check_fit


class AlignmentAsked(Protocol):
    """A job or a request for one."""

    @property
    def models(self) -> tuple[str, str]: ...
    @property
    def modules(self) -> tuple[str, ...] | None: ...


def modules_to_align(
    asked: AlignmentAsked,
    of_adapter: Sequence[StoredModule] | None,
    base: Checkpoint,
    chat: Checkpoint,
) -> Sequence[Shaped]:
    """In module order. Raises what `check_fit` raises, and InvalidField where there is none."""
    names = asked.models
    if of_adapter is not None:
        check_fit(of_adapter, base, chat, *names)
        return of_adapter
    if asked.modules is not None:
        return named_modules(asked.modules, base, chat, *names)
    return shared_modules(base, chat, *names)
