"""Tar archives, read block by block: `tarfile` holds whole pax headers in memory, and follows them.

Only plain files and the root folder pass. Format: POSIX.1-2024, pax, "ustar Interchange Format".
"""

import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from app.intake.archive_sink import CHUNK_BYTES, Sink, refuse

Read = Callable[[int], bytes]
"""Gives as many bytes as asked for, fewer only at the end."""

BLOCK_BYTES = 512
MAX_PAX_BYTES = 64 * 1024  # because times and owners need about 200 bytes
MAX_TAIL_BYTES = 1 << 20  # because archivers pad to a record, 10 KiB, at most some hundred KiB
_ZERO = bytes(BLOCK_BYTES)
_OCTAL = re.compile(rb" *([0-7]{1,11})[ \0]*")
_PAX_RECORD = re.compile(rb"([1-9][0-9]{0,5}) ([^=\n]+)=")
_PAX_REFUSED = (b"path", b"linkpath", b"size", b"GNU.")  # because each would overrule the header
_FILE, _FOLDER, _PAX = (b"0", b"\0"), b"5", (b"x", b"g")
_KINDS = {b"1": "a hard link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe",
          b"L": "a long name", b"K": "a long link name", b"S": "a sparse file"}  # fmt: skip


def unpack_tar(read: Read, sink: Sink) -> None:
    """Raises UnsafeArchive, UnexpectedFile, PickleRefused, TooLarge."""
    while (block := _take(read, BLOCK_BYTES, "its end")) != _ZERO:
        _check_sum(block)
        name, size_bytes, kind = _name(block), _size(block), block[156:157]
        sink.count(name)
        if kind in _PAX:
            _check_pax(_take(read, _padded(size_bytes, MAX_PAX_BYTES), name)[:size_bytes], name)
        elif kind == _FOLDER and size_bytes == 0:
            sink.admit_folder(name)
        elif kind in _FILE:
            sink.write(sink.admit(name), _chunks(read, size_bytes, name))
            _take(read, -size_bytes % BLOCK_BYTES, name)
        else:
            refuse(name, f"it is {_KINDS.get(kind, 'not a plain file')}")
    _check_tail(read)


class GzipReader:
    """Inflates one gzip member piece by piece, never more than asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(wbits=31)  # 31: gzip, with its checksum

    def read(self, size_bytes: int) -> bytes:
        """Raises UnsafeArchive when the stream is broken, cut short or followed by anything."""
        out = bytearray()
        while len(out) < size_bytes and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(CHUNK_BYTES)
            piece = self._inflated(packed, size_bytes - len(out))
            if not piece and not packed:
                refuse("its gzip stream", "it is cut short")
            out += piece
        if self._inflate.eof and (self._inflate.unused_data or self._file.read(1)):
            refuse("its gzip stream", "something follows it")
        return bytes(out)

    def _inflated(self, packed: bytes, most: int) -> bytes:
        try:
            return self._inflate.decompress(packed, most)
        except zlib.error:
            refuse("its gzip stream", "it is broken")


def _take(read: Read, size_bytes: int, name: str) -> bytes:
    taken = read(size_bytes)
    if len(taken) != size_bytes:
        refuse(name, "the archive is cut short")
    return taken


def _chunks(read: Read, size_bytes: int, name: str) -> Iterator[bytes]:
    while size_bytes:
        chunk = _take(read, min(size_bytes, CHUNK_BYTES), name)
        size_bytes -= len(chunk)
        yield chunk


def _padded(size_bytes: int, most: int) -> int:
    if size_bytes > most:
        refuse("a pax header", f"it is over the limit of {most} bytes")
    return size_bytes + -size_bytes % BLOCK_BYTES


def _check_sum(block: bytes) -> None:
    said = _octal(block[148:156])
    if said is None or said != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        refuse("a header", "its checksum is wrong")


def _name(block: bytes) -> str:
    """The entry's path; bytes that are not UTF-8 come out escaped and so match no allowed name."""
    parts = [block[:100]]
    if block[257:263] == b"ustar\0":  # GNU's own format keeps times where the prefix would be
        parts.insert(0, block[345:500])
    path = b"/".join(part.rstrip(b"\0") for part in parts if part.rstrip(b"\0"))
    return path.decode("utf-8", errors="backslashreplace")


def _size(block: bytes) -> int:
    size_bytes = _octal(block[124:136])
    if size_bytes is None:
        refuse(_name(block), "its size is not an octal number")
    return size_bytes


def _octal(text: bytes) -> int | None:
    said = _OCTAL.fullmatch(text)
    return int(said[1], 8) if said else None


def _check_pax(records: bytes, name: str) -> None:
    at = 0
    while at < len(records):
        record = _PAX_RECORD.match(records, at)
        end = at + int(record[1]) if record else 0
        if record is None or end < record.end() + 1 or records[end - 1 : end] != b"\n":
            refuse(name, "a pax header is broken")
        if record[2].startswith(_PAX_REFUSED):
            refuse(name, f"a pax header overrules {record[2][:30].decode('ascii', 'replace')}")
        at = end


def _check_tail(read: Read) -> None:
    """After the first zero block only zeros, and few of them."""
    tail = read(MAX_TAIL_BYTES)
    if tail.strip(b"\0") or read(1):
        refuse("its end", "something follows it")
