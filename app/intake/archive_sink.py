"""Where an archive's entries go: three names allowed, real bytes counted, all written or none."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from app.domain.errors import TooLarge, UnsafeArchive
from app.intake.limits import Limits
from app.intake.names import refuse_file, shown

CHUNK_BYTES = 1 << 20  # because this is what is held in memory at once
_AT_ROOT = "an archive holds an adapter's files at its root, no folder and nothing else"
_ROOTS = frozenset({".", "./"})  # how archivers name the folder they packed


class Sink:
    """Writes allowed entries into a folder; left with an exception, it removes what it wrote."""

    def __init__(self, into: Path, limits: Limits, archive_bytes: int) -> None:
        self._into = into
        self._limits = limits
        self._archive_bytes = archive_bytes
        self._entries = 0
        self._total_bytes = 0
        self._seen: set[str] = set()
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if kind is None:
            self._undo.pop_all()
        self._undo.close()

    def count(self, name: str) -> None:
        """Count one entry of any kind. Raises UnsafeArchive."""
        self._entries += 1
        if self._entries > self._limits.archive_entries:
            most = self._limits.archive_entries
            refuse(name, f"more than {most} entries")

    def admit_folder(self, name: str) -> None:
        """Let only the root itself pass. Raises UnsafeArchive, UnexpectedFile."""
        if name not in _ROOTS:
            _check_path(name)
            refuse_file(name, _AT_ROOT)

    def admit(self, name: str) -> str:
        """The plain name of an allowed file.

        Raises UnsafeArchive for tricks and repetitions, else PickleRefused, UnexpectedFile.
        """
        _check_path(name)
        plain = name.removeprefix("./")
        if plain not in self._limits.file_bytes:
            refuse_file(name, _AT_ROOT)
        if plain in self._seen:
            refuse(name, "it is in the archive twice")
        self._seen.add(plain)
        return plain

    def write(self, plain: str, chunks: Iterable[bytes]) -> None:
        """Write an admitted file. Raises TooLarge, UnsafeArchive."""
        target = self._into / plain
        with target.open("xb") as out:
            self._undo.callback(target.unlink)
            size_bytes = 0
            for chunk in chunks:
                size_bytes += len(chunk)
                self._check_growth(plain, size_bytes, len(chunk))
                out.write(chunk)

    def _check_growth(self, plain: str, size_bytes: int, more_bytes: int) -> None:
        cap = self._limits.file_bytes[plain]
        if size_bytes > cap:
            raise TooLarge(what=plain, limit_bytes=cap)
        self._total_bytes += more_bytes
        ratio = self._limits.archive_ratio
        allowed = max(self._limits.archive_ratio_floor_bytes, ratio * self._archive_bytes)
        if self._total_bytes > allowed:
            refuse(plain, f"it unpacks to more than {ratio} times the archive's size")


def refuse(entry: str, reason: str) -> NoReturn:
    """Raises UnsafeArchive."""
    raise UnsafeArchive(entry=shown(entry), reason=reason)


def _check_path(name: str) -> None:
    if "\\" in name or not name.isprintable():
        refuse(name, "a backslash or a control character in a name")
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
        refuse(name, "a path that leads out of the archive")
