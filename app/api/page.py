"""The page and its files, each with its digest as ETag and a policy that lets nothing else in."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

MEDIA_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
ROUTES = ("/", "/jobs/{job_id}", "/compare", "/verdicts", "/webhooks", "/keys", "/docs")
"""What the page knows by address: a link to it, and a reload, give the page."""


@dataclass(frozen=True)
class Asset:
    content: bytes
    media_type: str
    etag: str


@cache
def assets() -> Mapping[str, Asset]:
    """Every file of the page by its path, read once: they are small, and change with a release."""
    root = files("app.web").joinpath("static")
    return {name: _asset(name, file.read_bytes()) for name, file in _walk(root, "")}


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += _walk(entry, f"{name}/")
        elif PurePosixPath(name).suffix in MEDIA_TYPES:
            found.append((name, entry))
    return found


def _asset(name: str, content: bytes) -> Asset:
    digest = hashlib.sha256(content).hexdigest()
    return Asset(content, MEDIA_TYPES[PurePosixPath(name).suffix], f'"{digest[:32]}"')


def served(asset: Asset, request: Request) -> Response:
    """`no-cache`: kept, and asked about each time, so that a new release shows at once."""
    headers = {
        "ETag": asset.etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    known = request.headers.get("if-none-match", "").replace("W/", "").split(",")
    if asset.etag in (tag.strip() for tag in known):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)


def show_page(request: Request) -> Response:
    """The page; it looks itself which part of it is meant."""
    return served(assets()["index.html"], request)


for path in ROUTES:
    router.api_route(path, methods=["GET", "HEAD"])(show_page)


@router.api_route("/web/{name:path}", methods=["GET", "HEAD"])
def show_asset(name: str, request: Request) -> Response:
    """A file of the page. Looked up among names, so no path leads elsewhere."""
    asset = assets().get(name)
    if asset is None or name == "index.html":
        raise HTTPException(404, "no such file")
    return served(asset, request)
