"""Progress on stderr, so that stdout stays the report's."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

OnStep = Callable[[int, int, str, Mapping[str, object]], None]


@contextmanager
def progress(what: str) -> Iterator[OnStep]:
    """A bar that a job's steps move; of a training it shows the loss."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def move(done: int, total: int, name: str, event: Mapping[str, object]) -> None:
            loss = event.get("loss")
            said = f"{what}, loss {loss:.4g}" if isinstance(loss, float) else what
            bar.update(task, completed=done, total=total, description=said)

        yield move
