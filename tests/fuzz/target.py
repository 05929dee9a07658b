"""One upload as bytes, and the gate's verdict: it accepts what is consistent, or refuses.

`A` and an archive, or `P`, a configuration, a NUL and the weights.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from app.domain.errors import Refused
from app.intake.archives import unpack
from app.intake.manifest import read_manifest
from tests.fuzz.consistency import check_manifest


def as_pair(config: bytes, weights: bytes) -> bytes:
    return b"P" + config + b"\0" + weights


def as_archive(archive: bytes) -> bytes:
    return b"A" + archive


def passes(upload: bytes) -> bool:
    """Whether the gate takes it.

    Raises AssertionError for what should not have passed, and whatever else the gate raises.
    """
    with _folder() as folder:
        files = folder / "files"
        files.mkdir()
        try:
            _place(upload, folder, files)
            manifest = read_manifest(files)
        except Refused as refusal:
            assert str(refusal).isprintable()  # noqa: PT017 - it is what was caught that is asked
            return False
        config, weights = ((files / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE))
        check_manifest(manifest, config, weights)
        return True


def _place(upload: bytes, folder: Path, files: Path) -> None:
    if upload.startswith(b"A"):
        (folder / "archive").write_bytes(upload[1:])
        unpack(folder / "archive", files)
        return
    config, _, weights = upload[1:].partition(b"\0")
    (files / CONFIG_FILE).write_bytes(config)
    (files / WEIGHTS_FILE).write_bytes(weights)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gate-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
