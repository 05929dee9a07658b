"""Progress on stderr, so that stdout stays the report's."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import DownloadColumn, Progress, ProgressColumn

OnStep = Callable[[int, int, str, Mapping[str, object]], None]


def bar_on_stderr(*columns: ProgressColumn) -> Progress:
    """Which in a pipe shows nothing."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def progress(what: str) -> Iterator[OnStep]:
    """A bar that a job's steps move; of a training it shows the loss."""
    with bar_on_stderr() as bar:
        task = bar.add_task(what, total=None)

        def move(done: int, total: int, name: str, event: Mapping[str, object]) -> None:
            loss = event.get("loss")
            said = f"{what}, loss {loss:.4g}" if isinstance(loss, float) else what
            bar.update(task, completed=done, total=total, description=said)

        yield move


@contextmanager
def byte_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes on their way."""
    columns = (*Progress.get_default_columns(), DownloadColumn())
    with bar_on_stderr(*columns) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
