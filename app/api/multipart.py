"""multipart/form-data, streamed: file parts go to disk as they arrive, hashed on the way.

Memory stays flat whatever is sent. python-multipart parses; here are the limits, and the sinks that
its callbacks feed.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from anyio import to_thread
from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header

from app.domain.adapter import FileEntry
from app.domain.errors import InvalidField, MalformedMultipart, TooLarge, Unavailable

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it logs each malformed body

MAX_PARTS = 32  # because the richest request has a dozen
MAX_FIELD_BYTES = 64 * 1024  # because a method as JSON has about 200 bytes
BATCH_BYTES = 1 << 20  # one hop to a thread for each MiB, not for each network packet


@dataclass(frozen=True)
class FilePart:
    """A file part on disk."""

    path: Path
    file_name: str | None  # as the client calls it: shown, never used as a path
    entry: FileEntry


@dataclass
class Form:
    """The parts by name; no name comes twice."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, FilePart] = field(default_factory=dict)


async def read_form(request: Request, folder: Path, *, file_limits: Mapping[str, int]) -> Form:
    """Read the whole body; the parts named in `file_limits` (in bytes) become files in `folder`.

    Raises MalformedMultipart, TooLarge, InvalidField.
    """
    receiver = _Receiver(folder, file_limits)
    try:
        await _feed(request, receiver)
    finally:
        receiver.close()
    return receiver.form


async def _feed(request: Request, receiver: "_Receiver") -> None:
    parser = MultipartParser(_boundary(request.headers.get("content-type")), receiver.callbacks)
    batch = bytearray()
    async for chunk in request.stream():
        batch += chunk
        if len(batch) >= BATCH_BYTES or not chunk:  # the last chunk is empty
            await to_thread.run_sync(_write, parser, bytes(batch))
            batch.clear()
    if not receiver.ended:
        raise MalformedMultipart(reason="it ends before its last boundary")


def _write(parser: MultipartParser, data: bytes) -> None:
    try:
        parser.write(data)
    except MultipartParseError as error:
        raise MalformedMultipart(reason=f"byte {error.offset} of its last piece") from error
    except OSError as error:  # a full disk, most likely
        raise Unavailable(part="storage") from error


def _boundary(content_type: str | None) -> bytes:
    media, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if media != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise MalformedMultipart(reason="Content-Type must be multipart/form-data with a boundary")
    return boundary


class _Receiver:
    """Turns the parser's callbacks into fields and files."""

    def __init__(self, folder: Path, file_limits: Mapping[str, int]) -> None:
        self.form, self.ended = Form(), False
        self._folder, self._limits = folder, file_limits
        self._sink: _FieldSink | FileSink | None = None
        self._name, self._seen = "", 0
        self._header, self._value = bytearray(), bytearray()
        self._headers: dict[str, bytes] = {}
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._open,
            "on_part_data": lambda data, start, end: self._write(data[start:end]),
            "on_part_end": self._end,
            "on_end": lambda: setattr(self, "ended", True),
        }

    def close(self) -> None:
        """Close what a broken body left open."""
        if isinstance(self._sink, FileSink):
            self._sink.file.close()

    def _begin(self) -> None:
        self._seen += 1
        if self._seen > MAX_PARTS:
            raise MalformedMultipart(reason=f"it has more than {MAX_PARTS} parts")
        self._headers = {}

    def _header_end(self) -> None:
        self._headers[self._header.decode("latin-1").lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _open(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition"))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or not self._name:
            raise MalformedMultipart(reason="a part has no name")
        if self._name in self.form.fields or self._name in self.form.files:
            raise InvalidField(field=self._name, reason="comes twice")
        self._sink = self._sink_for(self._name, options.get(b"filename"))

    def _sink_for(self, name: str, file_name: bytes | None) -> "_FieldSink | FileSink":
        if name not in self._limits:
            if file_name is not None:
                raise InvalidField(field=name, reason="no file belongs here")
            return _FieldSink(name)
        path = self._folder / f"part-{self._seen}"
        shown = file_name.decode("utf-8", "replace") if file_name is not None else None
        return FileSink(f"part {name}", path, shown, self._limits[name], path.open("wb"))

    def _write(self, data: bytes) -> None:
        if self._sink:
            self._sink.write(data)

    def _end(self) -> None:
        if isinstance(self._sink, FileSink):
            self.form.files[self._name] = self._sink.finish()
        elif self._sink:
            self.form.fields[self._name] = self._sink.finish()
        self._sink = None


class _FieldSink:
    def __init__(self, name: str) -> None:
        self._name, self._data = name, bytearray()

    def write(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > MAX_FIELD_BYTES:
            raise TooLarge(what=f"field {self._name}", limit_bytes=MAX_FIELD_BYTES)

    def finish(self) -> str:
        try:
            return self._data.decode()
        except UnicodeDecodeError:
            raise InvalidField(field=self._name, reason="is not UTF-8 text") from None


@dataclass
class FileSink:
    """A file that is hashed as it is written, up to a limit."""

    name: str
    path: Path
    file_name: str | None
    limit_bytes: int
    file: BinaryIO
    size_bytes: int = 0

    def __post_init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.size_bytes += len(data)
        if self.size_bytes > self.limit_bytes:
            raise TooLarge(what=self.name, limit_bytes=self.limit_bytes)
        self._sha256.update(data)
        self.file.write(data)

    def finish(self) -> FilePart:
        self.file.close()
        entry = FileEntry(self._sha256.hexdigest(), self.size_bytes)
        return FilePart(self.path, self.file_name, entry)
