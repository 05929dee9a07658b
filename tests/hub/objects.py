"""File contents in a folder, addressed by what is in them."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 64 * 1024

Contents = bytes | str | Path


@dataclass(frozen=True)
class Blob:
    """One content; `git_sha1` is what git calls it."""

    path: Path
    sha256: str
    git_sha1: str
    size: int  # bytes

    def read(self) -> bytes:
        return self.path.read_bytes()

    def chunks(self, first: int, count: int) -> Iterator[bytes]:
        """`count` bytes from offset `first`."""
        with self.path.open("rb") as file:
            file.seek(first)
            while count > 0 and (chunk := file.read(min(CHUNK_BYTES, count))):
                count -= len(chunk)
                yield chunk


@dataclass(frozen=True)
class Entry:
    """A file of a commit: in git itself, or in git-lfs behind a pointer."""

    blob: Blob
    lfs: bool

    @property
    def pointer(self) -> bytes:
        oid, size = self.blob.sha256, self.blob.size
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"
        return text.encode()

    @property
    def git_sha1(self) -> str:
        """What git calls the file that it holds: the pointer, where there is one."""
        return git_sha1(b"blob", self.pointer) if self.lfs else self.blob.git_sha1

    @property
    def etag(self) -> str:
        return self.blob.sha256 if self.lfs else self.blob.git_sha1


class Store:
    """All contents, each once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs: dict[str, Blob] = {}

    def find(self, sha256: str) -> Blob | None:
        return self._blobs.get(sha256)

    def put(self, contents: Contents) -> Blob:
        if isinstance(contents, Path):
            return self.take(_chunks_of(contents))
        data = contents.encode() if isinstance(contents, str) else contents
        return self.take([data])

    def take(self, chunks: Iterable[bytes], expected: str | None = None) -> Blob:
        """Keep what comes; ValueError if its SHA-256 is not the `expected` one."""
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
        sha256, written = digest.hexdigest(), Path(file.name)
        if expected not in (None, sha256):
            written.unlink()
            raise ValueError(f"expected sha256 {expected}, found {sha256}")
        return self._blobs.setdefault(sha256, self._named(written, sha256))

    def _named(self, written: Path, sha256: str) -> Blob:
        path = written.replace(self._folder / sha256)
        size = path.stat().st_size
        digest = hashlib.sha1(b"blob %d\0" % size)
        for chunk in _chunks_of(path):
            digest.update(chunk)
        return Blob(path, sha256, digest.hexdigest(), size)


def git_sha1(kind: bytes, data: bytes) -> str:
    return hashlib.sha1(b"%s %d\0" % (kind, len(data)) + data).hexdigest()


def _chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
