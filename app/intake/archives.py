"""Unpack an uploaded zip or tar that holds an adapter's files at its root and nothing else.

The archive's own words are never trusted: names are matched against three, sizes are counted while
the bytes come out, and what was written is removed again when anything is wrong.
"""

from pathlib import Path
from typing import BinaryIO

from app.domain.errors import PickleRefused
from app.intake.archive_sink import Sink, refuse
from app.intake.archive_tar import GzipReader, unpack_tar
from app.intake.archive_zip import unpack_zip
from app.intake.limits import UPLOAD_LIMITS, Limits
from app.intake.names import shown
from app.intake.safetensors_header import PICKLE_PROTOCOLS

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")  # the second begins a zip without entries
GZIP_MAGIC = b"\x1f\x8b"
TAR_MAGIC = b"ustar"
TAR_MAGIC_AT = 257  # bytes from the start


def unpack(archive: Path, into: Path, limits: Limits = UPLOAD_LIMITS) -> None:
    """Write the archive's files into the empty folder `into`: all of them, or none.

    The kind is told by the first bytes (zip, tar, gzip), not by the name.
    Raises UnsafeArchive, UnexpectedFile, PickleRefused, TooLarge.
    """
    size_bytes = archive.stat().st_size
    with archive.open("rb") as file, Sink(into, limits, size_bytes) as sink:
        start = file.read(TAR_MAGIC_AT + len(TAR_MAGIC))
        file.seek(0)
        if start.startswith(PICKLE_PROTOCOLS):
            raise PickleRefused(file=shown(archive.name))
        _unpack_by_magic(file, start, size_bytes, sink)


def _unpack_by_magic(file: BinaryIO, start: bytes, size_bytes: int, sink: Sink) -> None:
    if start.startswith(ZIP_MAGICS):
        unpack_zip(file, size_bytes, sink)
    elif start.startswith(GZIP_MAGIC):
        unpack_tar(GzipReader(file).read, sink)
    elif start[TAR_MAGIC_AT:] == TAR_MAGIC:
        unpack_tar(file.read, sink)
    else:
        refuse("its first bytes", "they are neither a zip's nor a tar's")
