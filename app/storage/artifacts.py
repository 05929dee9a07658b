"""Files by their SHA-256 on obstore: a local folder, or a bucket by URL.

obstore is imported and its store made on first use: its I/O threads do not survive a fork, so a
parent that had touched it would leave a prefork child hanging.
"""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from app.domain.adapter import FileEntry
from app.domain.errors import ArtifactCorrupt, Unavailable
from app.jobs.ports import StoredFile
from app.observe.watch import moved, phase

PIECE_BYTES = 1024 * 1024
PART_BYTES = 5 * 1024 * 1024  # S3's smallest part of a multipart upload
PARTS_AT_ONCE = 4  # bounds the memory of a put: PART_BYTES each
CHECK_KEY = "check"
PREFIX = "sha256"
IS_DIGEST = re.compile(r"[0-9a-f]{64}")
LEFT_AFTER_S = 24 * 3600.0  # because no put takes a day

# because obstore's own (ten retries over three minutes) would hold a request for as long
RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}


class ObjectArtifacts:
    """`Artifacts` in a folder (a path or `file:///...`) or a bucket (`s3://bucket/prefix`).

    A bucket's options come from the environment, by obstore's names: AWS_REGION, AWS_ENDPOINT_URL,
    AWS_ALLOW_HTTP, AWS_TIMEOUT and so on. None are given here, because one client option given in
    code makes obstore forget all of them that the environment gave.
    """

    def __init__(self, location: str | Path) -> None:
        self._location = str(location)
        self._lock = threading.Lock()
        self._made: Any = None

    @phase("store")
    def put(self, path: Path, file: FileEntry) -> None:
        """Publish a local file under its digest, whole or not at all.

        What is there already is written again: the same bytes, or better ones if it was damaged.
        Raises ArtifactCorrupt when the local file is not what `file` says, Unavailable.
        """
        import obstore

        with path.open("rb") as source, _answering():
            obstore.put(
                self._store(),
                key_of(file),
                _verified(_pieces_of(source), file),
                use_multipart=file.size_bytes > PART_BYTES,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
        moved("store", file.size_bytes)

    @phase("fetch")
    def fetch(self, file: FileEntry, into: Path) -> None:
        """Write the file to `into` and check it. On any failure `into` is gone.

        Raises ArtifactCorrupt, Unavailable.
        """
        try:
            with into.open("wb") as target:
                for piece in _verified(self._stream(file), file):
                    target.write(piece)
            moved("fetch", file.size_bytes)
        except BaseException:
            into.unlink(missing_ok=True)
            raise

    def read(self, file: FileEntry, begin: int, end: int) -> Iterator[bytes]:
        """Bytes [begin, end) in pieces of at most 1 MiB.

        A file that is missing or has another size is found before the iterator is returned; the
        digest is not checked, because a range cannot show it.
        Raises ArtifactCorrupt, Unavailable.
        """
        if not 0 <= begin <= end <= file.size_bytes:
            raise ValueError(f"[{begin}, {end}) is no range of {file.size_bytes} bytes")
        self._check_size(file)
        return self._stream(file, (begin, end)) if begin < end else iter(())

    def has(self, file: FileEntry) -> bool:
        """Whether a file of this digest and size is there. Raises Unavailable."""
        import obstore

        try:
            with _answering(missing_is_unavailable=False):
                return bool(obstore.head(self._store(), key_of(file))["size"] == file.size_bytes)
        except FileNotFoundError:
            return False

    def stored(self, *, older_than: timedelta) -> Iterator[StoredFile]:
        """Every file that was put longer ago than that. Raises Unavailable."""
        import obstore

        before = datetime.now(UTC) - older_than
        with _answering():
            for found in chain.from_iterable(obstore.list(self._store(), prefix=PREFIX)):
                name = str(found["path"]).rpartition("/")[2]
                if found["last_modified"] < before and IS_DIGEST.fullmatch(name):
                    yield StoredFile(name, found["size"], found["last_modified"])

    def remove(self, file: StoredFile) -> bool:
        """Take a file away, unless it was put again since it was listed; whether it is gone now.
        Raises Unavailable."""
        import obstore

        key = _key(file.sha256)
        try:
            with _answering(missing_is_unavailable=False):
                if obstore.head(self._store(), key)["last_modified"] != file.changed_at:
                    return False
                obstore.delete(self._store(), key)
        except FileNotFoundError:
            pass  # another process was faster
        return True

    def check(self) -> None:
        """Write a small object. Raises Unavailable."""
        import obstore

        with _answering():
            obstore.put(self._store(), CHECK_KEY, b"written by the readiness check")

    def sweep(self) -> None:
        """Remove, a day after, what puts of killed processes have left in a folder, where obstore
        writes to `<key>#<number>` first. Of a bucket its own rules have to do it."""
        folder = _folder_of(self._location)
        for path in folder.glob("sha256/*/*#*") if folder else ():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > LEFT_AFTER_S:
                    path.unlink()

    def _check_size(self, file: FileEntry) -> None:
        import obstore

        with _answering(), _missing_is_corrupt(file):
            if obstore.head(self._store(), key_of(file))["size"] != file.size_bytes:
                raise _corrupt(file)

    def _stream(self, file: FileEntry, only: tuple[int, int] | None = None) -> Iterator[bytes]:
        """The stored bytes, or a range of them, in pieces; all that are there, checked by none."""
        import obstore

        options: Any = {} if only is None else {"range": only}
        with _answering(), _missing_is_corrupt(file):
            found = obstore.get(self._store(), key_of(file), options=options)
        pieces = iter(found.stream(min_chunk_size=PIECE_BYTES))
        while True:
            with _answering():
                piece = memoryview(next(pieces, b""))
            if not piece:
                return
            for offset in range(0, len(piece), PIECE_BYTES):
                yield bytes(piece[offset : offset + PIECE_BYTES])

    def _store(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _make_store(self._location)
            return self._made


def key_of(file: FileEntry) -> str:
    """Where a file is kept, e.g. `sha256/ab/abcd...`."""
    return _key(file.sha256)


def _key(sha256: str) -> str:
    return f"{PREFIX}/{sha256[:2]}/{sha256}"


def _make_store(location: str) -> Any:
    from obstore.store import LocalStore, from_url

    if folder := _folder_of(location):
        return LocalStore(folder, mkdir=True)
    return from_url(location, retry_config=RETRIES)


def _folder_of(location: str) -> Path | None:
    """None for a bucket."""
    if "://" not in location:
        return Path(location)
    url = urlsplit(location)
    return Path(url2pathname(url.path)) if url.scheme == "file" else None


def _pieces_of(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(PIECE_BYTES):
        yield piece


def _verified(pieces: Iterator[bytes], file: FileEntry) -> Iterator[bytes]:
    """The same pieces; ArtifactCorrupt at the end (at once when too long) if they are not `file`'s.

    A put that reads from here publishes nothing when this raises.
    """
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        if size > file.size_bytes:
            raise _corrupt(file)
        yield piece
    if size != file.size_bytes or digest.hexdigest() != file.sha256:
        raise _corrupt(file)


def _corrupt(file: FileEntry) -> ArtifactCorrupt:
    return ArtifactCorrupt(what=f"file {file.sha256[:12]}")


@contextmanager
def _missing_is_corrupt(file: FileEntry) -> Iterator[None]:
    """A stored file that is not there matches its digest no better than a damaged one."""
    try:
        yield
    except FileNotFoundError as error:
        raise _corrupt(file) from error


@contextmanager
def _answering(*, missing_is_unavailable: bool = True) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError as error:
        if missing_is_unavailable:
            raise Unavailable(part="storage") from error
        raise
    except (BaseError, OSError) as error:
        raise Unavailable(part="storage") from error
