"""An adapter on disk, in whatever form it came, opened as a folder and its manifest."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from app.domain.adapter import AdapterManifest
from app.domain.errors import InvalidField
from app.intake.archives import unpack
from app.intake.limits import UPLOAD_LIMITS, Limits
from app.intake.manifest import read_manifest
from app.intake.names import shown


@dataclass(frozen=True)
class OpenedAdapter:
    """A validated adapter and the folder its files lie in while it is open."""

    folder: Path
    manifest: AdapterManifest


@contextmanager
def open_adapter(path: Path, limits: Limits = UPLOAD_LIMITS) -> Iterator[OpenedAdapter]:
    """Open a folder, or an archive unpacked into a folder of its own that is removed at the end.

    Raises InvalidField where there is nothing, and what `unpack` and `read_manifest` raise.
    """
    if path.is_dir():
        yield OpenedAdapter(path, read_manifest(path, limits))
        return
    if not path.is_file():
        raise InvalidField(field="adapter", reason=f"there is nothing at {shown(str(path))}")
    with TemporaryDirectory(prefix="adapter-safety-") as unpacked:
        folder = Path(unpacked)
        unpack(path, folder, limits)
        yield OpenedAdapter(folder, read_manifest(folder, limits))
