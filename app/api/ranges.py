"""A stored file as a response with ETag, one byte range and Repr-Digest (RFC 9110, RFC 9530)."""

import base64
import re
from collections.abc import Mapping

from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from app.domain.adapter import FileEntry
from app.jobs.ports import Artifacts

BYTE_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")


def file_response(
    file: FileEntry,
    artifacts: Artifacts,
    *,
    request_headers: Mapping[str, str],
    media_type: str,
    file_name: str,
    head: bool = False,
) -> Response:
    """The whole file (200), a part (206), nothing new (304) or no such part (416).

    With `head` the headers alone.
    """
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:",
        "Content-Disposition": f'attachment; filename="{file_name}"',
    }
    if _matches(request_headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    begin, end = _wanted(request_headers, etag, file.size_bytes)
    partial = (begin, end) != (0, file.size_bytes)
    if partial:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size_bytes}"
    headers["Content-Length"] = str(end - begin)
    if head:
        return Response(status_code=206 if partial else 200, headers=headers, media_type=media_type)
    body = artifacts.read(file, begin, end)
    return StreamingResponse(body, 206 if partial else 200, headers, media_type)


def _matches(if_none_match: str | None, etag: str) -> bool:
    listed = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in listed or "*" in listed


def _wanted(headers: Mapping[str, str], etag: str, size: int) -> tuple[int, int]:
    """[begin, end) of the range asked for; the whole file where a range does not apply."""
    if headers.get("if-range", etag) != etag or "range" not in headers:
        return 0, size
    return byte_range(headers["range"], size)


def byte_range(header: str, size: int) -> tuple[int, int]:
    """[begin, end) of one byte range; a form we do not serve (several ranges) gives the whole.

    Raises 416 for a range that lies outside the file.
    """
    match = BYTE_RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if first:
        begin, end = int(first), min(int(last) + 1 if last else size, size)
    else:
        begin, end = max(0, size - int(last)), size
    if last and first and int(last) < int(first):
        return 0, size  # not a valid range, so it is ignored
    if begin >= end:
        raise HTTPException(416, "no such range", {"Content-Range": f"bytes */{size}"})
    return begin, end
