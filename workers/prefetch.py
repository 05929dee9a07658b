"""Have the weights of many modules here at once: many connections to a hub are faster than one
module after the other."""

from collections.abc import Iterable

from app.domain.alignment import Shaped
from app.domain.checkpoint import Checkpoint


def have_weights(modules: Iterable[Shaped], *checkpoints: Checkpoint) -> None:
    """Raises what fetching raises. What is not asked for here is fetched when it is read."""
    names = [module.name for module in modules]
    for checkpoint in checkpoints:
        found = (checkpoint.weight(name) for name in names)
        checkpoint.have([weight for weight in found if weight])
