"""A file on its way: resumed where it was cut, and checked against its digest. No network I/O.

What has come lies in `NAME.part` beside the target, with the ETag of what it is a part of in
`NAME.part.etag`, so that another process can go on too. The target is whole or not there.
"""

import base64
import hashlib
import re
from pathlib import Path
from types import TracebackType
from typing import IO

import httpx

from app.client.bodies import OnProgress
from app.client.patience import Patience, may_pass
from app.client.problems import DigestMismatch, problem_of

SHA256 = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/]{43}=):", re.IGNORECASE)
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
BLOCK = 1 << 20
RESTARTS = 3  # because a part that the service does not go on from must not do so for ever


class Download:
    """One file, over as many connections as it takes."""

    def __init__(
        self, path: str, target: Path, patience: Patience, on_progress: OnProgress | None = None
    ) -> None:
        self.path, self.target, self.done = path, target, False
        self._patience, self._on_progress = patience.afresh(), on_progress
        self._part = target.with_name(f"{target.name}.part")
        self._tag = target.with_name(f"{target.name}.part.etag")
        self._restarts, self._size, self._total = 0, 0, 0
        self._expected: str | None = None

    def __enter__(self) -> "Download":
        etag = self._tag.read_text() if self._tag.is_file() and self._part.is_file() else None
        self._etag: str | None = etag
        self._file: IO[bytes] = self._part.open("r+b" if etag else "w+b")
        self._rehash()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """What may be gone on from is kept; an empty part is not."""
        self._file.close()
        if not self.done and self._size == 0:
            self._forget()

    @property
    def headers(self) -> dict[str, str]:
        """Of the next request. `identity`, because digest and range are of the plain bytes."""
        plain = {"Accept-Encoding": "identity"}
        if not self._size or self._etag is None:
            return plain
        return {**plain, "Range": f"bytes={self._size}-", "If-Range": self._etag}

    def begin(self, response: httpx.Response) -> bool:
        """Whether a body is to be fed. Raises ProblemError; its body must have been read."""
        if response.status_code == 416 and self._restarts < RESTARTS:
            self._restart(None)
            return False
        if not response.is_success:
            raise problem_of(response)
        etag = response.headers.get("etag")
        if response.status_code == 206 and not self._goes_on(response, etag):
            self._restart(None)
            return False
        if response.status_code != 206:
            self._restart(etag)
        self._total = self._size + int(response.headers.get("content-length", 0))
        self._expected = digest_of(response.headers.get("repr-digest", ""))
        return True

    def feed(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self._size += len(chunk)
        self._patience.renew()
        if self._on_progress:
            self._on_progress(self._size, max(self._total, self._size))

    def finish(self) -> None:
        """The body has ended. Raises DigestMismatch, having thrown away what came."""
        self._file.close()
        found = self._hash.hexdigest()
        if found != self._expected:
            self._forget()
            self._size = 0
            raise DigestMismatch(self.path, self._expected, found)
        self._part.replace(self.target)
        self._tag.unlink(missing_ok=True)
        self.done = True

    def pause_s(self, error: Exception) -> float:
        """Before the next connection. Raises the error where it will not pass, or has not."""
        if not may_pass(error):
            raise error
        self._file.flush()
        return self._patience.pause_s(error)

    def _goes_on(self, response: httpx.Response, etag: str | None) -> bool:
        """Whether a partial answer begins where our part ends, and is of the same content."""
        match = CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        return match is not None and int(match[1]) == self._size and etag == self._etag

    def _restart(self, etag: str | None) -> None:
        """Nothing of the part is used."""
        self._restarts += 1
        self._file.seek(0)
        self._file.truncate()
        self._etag = etag if etag and not etag.startswith("W/") else None
        if self._etag:
            self._tag.write_text(self._etag)
        else:
            self._tag.unlink(missing_ok=True)
        self._rehash()

    def _rehash(self) -> None:
        self._hash, self._size, self._total = hashlib.sha256(), 0, 0
        self._file.seek(0)
        while block := self._file.read(BLOCK):
            self._hash.update(block)
            self._size += len(block)

    def _forget(self) -> None:
        self._part.unlink(missing_ok=True)
        self._tag.unlink(missing_ok=True)


def digest_of(repr_digest: str) -> str | None:
    """The SHA-256 in hex of a Repr-Digest (RFC 9530); None where there is none."""
    match = SHA256.search(repr_digest)
    return base64.b64decode(match[1]).hex() if match else None
