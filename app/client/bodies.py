"""Files as request bodies, streamed from disk and told about as they go."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from app.domain.adapter import CONFIG_FILE, README_FILE, WEIGHTS_FILE

PARTS = {"config": CONFIG_FILE, "weights": WEIGHTS_FILE, "readme": README_FILE}

OnProgress = Callable[[int, int], None]
"""Told bytes done and bytes in all."""


class Told:
    """A file that tells how far it was read. httpx asks it for `read`, `seek`, `tell`, `fileno`."""

    def __init__(self, file: IO[bytes], tell: Callable[[int], None]) -> None:
        self._file, self._tell = file, tell
        self.seek, self.tell, self.fileno = file.seek, file.tell, file.fileno

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._tell(len(chunk))
        return chunk


def parts_of(adapter: Path) -> dict[str, Path]:
    """A folder's files by their parts' names; anything else is an archive."""
    if not adapter.is_dir():
        return {"archive": adapter}
    return {part: adapter / name for part, name in PARTS.items() if (adapter / name).is_file()}


@contextmanager
def opened(files: Mapping[str, Path], on_progress: OnProgress | None) -> Iterator[dict[str, Any]]:
    """As httpx takes them. Each attempt opens them anew, from their beginnings."""
    with ExitStack() as stack:
        handles = {part: stack.enter_context(path.open("rb")) for part, path in files.items()}
        total = sum(os.fstat(handle.fileno()).st_size for handle in handles.values())
        done = 0

        def tell(more: int) -> None:
            nonlocal done
            done += more
            if on_progress and more:
                on_progress(done, total)

        yield {part: (files[part].name, Told(file, tell)) for part, file in handles.items()}
