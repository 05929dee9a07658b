"""Zip archives, read by `zipfile` only after its directory is known to be small and in place."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from app.intake.archive_sink import CHUNK_BYTES, Sink, refuse
from app.intake.names import is_pickle_name, refuse_file

MAX_DIRECTORY_BYTES = 64 * 1024  # because zipfile reads it whole; 16 entries need about 2 KiB
_END = struct.Struct("<4s4H2LH")  # the end record, APPNOTE.TXT 4.3.16
_END_MAGIC = b"PK\x05\x06"
_LOCAL_BYTES = 30  # a local header without its name, APPNOTE.TXT 4.3.7
_LOCATOR64_MAGIC, _LOCATOR64_BYTES = b"PK\x06\x07", 20
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # general purpose flags, APPNOTE.TXT 4.4.4
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What zipfile and zlib raise on broken archives, as found by the property tests.
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, OverflowError,
           NotImplementedError, RuntimeError, OSError)  # fmt: skip


def unpack_zip(file: BinaryIO, size_bytes: int, sink: Sink) -> None:
    """Raises UnsafeArchive, UnexpectedFile, PickleRefused, TooLarge."""
    _check_first(file)
    _check_end(file, size_bytes)
    try:
        archive = zipfile.ZipFile(file)
    except _FAULTS:
        refuse("its directory", "it is broken")
    with archive:
        for info in archive.infolist():
            sink.count(info.orig_filename)
            _unpack_entry(archive, info, sink)


def _check_first(file: BinaryIO) -> None:
    """Call a file of torch.save a pickle: it is a zip64 whose first entry is `.../data.pkl`."""
    start = file.read(_LOCAL_BYTES)
    name_bytes = int.from_bytes(start[26:28], "little")
    name = file.read(name_bytes).decode("utf-8", errors="backslashreplace")
    if is_pickle_name(name):
        refuse_file(name)


def _check_end(file: BinaryIO, size_bytes: int) -> None:
    """The directory must be small and end where the last 22 bytes say, with nothing after.

    Zip64 is refused, because the sizes we take do not need it and zipfile would follow its record.
    """
    tail_bytes = min(size_bytes, _END.size + _LOCATOR64_BYTES)
    file.seek(size_bytes - tail_bytes)
    tail = file.read(tail_bytes)
    if not tail[-_END.size :].startswith(_END_MAGIC) or len(tail) < _END.size:
        refuse("its end", "it is cut short, or something follows its directory")
    _, disk, disk_of_directory, here, entries, length, begin, comment = _END.unpack(
        tail[-_END.size :]
    )
    if tail.startswith(_LOCATOR64_MAGIC):
        refuse("its end", "zip64 is not read; pack it without")
    if (disk, disk_of_directory, comment) != (0, 0, 0) or here != entries:
        refuse("its end", "it has a comment or is one of several parts")
    if begin + length != size_bytes - _END.size:
        refuse("its directory", "it does not lie where the end says")
    if length > MAX_DIRECTORY_BYTES:
        refuse("its directory", f"it is over the limit of {MAX_DIRECTORY_BYTES} bytes")


def _unpack_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, sink: Sink) -> None:
    name = info.orig_filename  # as stored; `filename` is already cut at a NUL
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 when made where files have no Unix mode
    if name.endswith("/"):
        sink.admit_folder(name)
        return
    plain = sink.admit(name)
    if kind not in (0, stat.S_IFREG):
        refuse(name, "it is a link or a device")
    if info.flag_bits & _ENCRYPTED:
        refuse(name, "it is encrypted")
    if info.compress_type not in _METHODS:
        refuse(name, "its compression is neither stored nor deflated")
    sink.write(plain, _chunks(archive, info))


def _chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(info) as entry:
            while chunk := entry.read(CHUNK_BYTES):
                yield chunk
    except _FAULTS:
        refuse(info.orig_filename, "its bytes are broken or cut short")
