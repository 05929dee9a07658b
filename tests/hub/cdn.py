"""The host that LFS files lie on: signed URLs that expire, to download from and to upload to."""

import hashlib
import hmac
import time
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from tests.hub import errors
from tests.hub.faults import Faults
from tests.hub.objects import Blob, Store
from tests.hub.ranges import Sending, plan
from tests.hub.wire import Answer, Call, told


@dataclass
class Cdn:
    store: Store
    faults: Faults
    base: str = ""  # scheme, host and port, once it runs
    lifetime_s: float = 3600
    _key: bytes = field(default=b"0")

    def expire(self) -> None:
        """Every URL given so far has expired."""
        self._key += b"0"

    def download_url(self, blob: Blob, repo: str, file: str) -> str:
        expired = self.faults.take("expired", repo, file)
        return self._signed(f"/{repo}/{blob.sha256}", file, 0 if expired else None)

    def upload_url(self, sha256: str) -> str:
        return self._signed(f"/upload/{sha256}", "")

    def answer(self, call: Call) -> Answer | Sending:
        self._check_signature(call)
        if call.request.method == "PUT":
            return self._take(call)
        repo, sha256 = call.request.path[1:].rsplit("/", 1)
        file = call.request.query["file"]
        call.request.repo, call.request.file = repo, file
        blob = self.store.find(sha256)
        if blob is None:
            raise errors.not_found()
        sending = plan(blob, call.request, self.faults)
        sending.headers["ETag"] = f'"{sha256}"'
        return sending

    def _take(self, call: Call) -> Answer:
        try:
            blob = self.store.take(call.chunks, expected=call.request.path.rsplit("/", 1)[1])
        except ValueError as error:
            raise errors.bad_request(f"XAmzContentSHA256Mismatch: {error}") from error
        return told({}, ETag=f'"{blob.sha256}"')

    def _signed(self, path: str, file: str, expires: int | None = None) -> str:
        due = int(time.time() + self.lifetime_s) if expires is None else expires
        query = {"file": file, "Expires": str(due)}
        query["Signature"] = self._signature(path, file, query["Expires"])
        return f"{self.base}{quote(path)}?{urlencode(query)}"

    def _signature(self, *parts: str) -> str:
        return hmac.new(self._key, "\0".join(parts).encode(), hashlib.sha256).hexdigest()

    def _check_signature(self, call: Call) -> None:
        query = call.request.query
        expires = query.get("Expires", "0")
        right = self._signature(call.request.path, query.get("file", ""), expires)
        if query.get("Signature") != right or float(expires) < time.time():
            raise errors.HubError(403, "AccessDenied: Request has expired")
