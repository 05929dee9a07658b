"""Safety modules and kits over real HTTP. No request makes one: a worker does."""

import base64
import hashlib
import uuid
from pathlib import Path

import httpx
import pytest

from app.domain.salora import Part, PartKind, PartModule
from tests.samples import a_file, a_part
from tests.service import Service

PATHS: dict[PartKind, str] = {"safety_module": "/v1/safety-modules", "kit": "/v1/salora-kits"}
FILES = {
    "safety_module": ("application/octet-stream", "safety_module.safetensors"),
    "kit": ("application/zip", "salora_kit.zip"),
}
KINDS = pytest.mark.parametrize("kind", PATHS)


def keep(service: Service, kind: PartKind, folder: Path, content: bytes = b"part") -> Part:
    path, file = a_file(folder, content + uuid.uuid4().bytes)
    modules = tuple(PartModule(f"model.layers.{n}.mlp.up_proj", 48, 32, 4) for n in range(3))
    with service.stores() as (records, artifacts):
        artifacts.put(path, file)
        return records.add_part(a_part(kind, file=file, modules=modules))


@KINDS
def test_a_part_is_shown_with_its_modules(
    http: httpx.Client, service: Service, tmp_path: Path, kind: PartKind
) -> None:
    part = keep(service, kind, tmp_path)
    shown = http.get(f"{PATHS[kind]}/{part.id}").json()
    assert shown["chat_model"] == {"id": part.chat_model, "digest": part.chat_digest}
    assert shown["modules"][2] == {
        "name": "model.layers.2.mlp.up_proj",
        "d_out": 48,
        "d_in": 32,
        "rank": 4,
    }
    assert (shown["size_bytes"], shown["made_of"]) == (part.file.size_bytes, dict(part.made_of))
    path = f"{PATHS[kind]}/{part.id}"
    assert shown["links"] == {"self": path, "file": f"{path}/file"}


@KINDS
def test_parts_are_listed_newest_first_with_the_number_of_their_modules(
    http: httpx.Client, service: Service, tmp_path: Path, kind: PartKind
) -> None:
    kept = [keep(service, kind, tmp_path) for _ in range(2)]
    first = http.get(PATHS[kind], params={"limit": 1}).json()
    second = http.get(PATHS[kind], params={"limit": 1, "cursor": first["next_cursor"]}).json()
    found = [*first["items"], *second["items"]]
    assert [part["id"] for part in found] == [part.id for part in kept[::-1]]
    assert found[0]["modules"] == 3
    assert "made_of" not in found[0]


@KINDS
def test_the_file_comes_with_its_digest_whole_or_in_part(
    http: httpx.Client, service: Service, tmp_path: Path, kind: PartKind
) -> None:
    part = keep(service, kind, tmp_path, b"x" * 100)
    path = f"{PATHS[kind]}/{part.id}/file"
    whole, head = http.get(path), http.head(path)
    digest = hashlib.sha256(whole.content)
    media, name = FILES[kind]
    assert digest.hexdigest() == part.file.sha256
    assert whole.headers["content-type"] == media
    assert whole.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert whole.headers["etag"] == f'"{part.file.sha256}"'
    encoded = base64.b64encode(digest.digest()).decode()
    assert whole.headers["repr-digest"] == f"sha-256=:{encoded}:"
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    some = http.get(path, headers={"Range": "bytes=10-19"})
    assert (some.status_code, some.content) == (206, whole.content[10:20])
    assert http.get(path, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


@KINDS
def test_an_unknown_part_is_a_404_problem_and_so_is_one_of_the_other_kind(
    http: httpx.Client, service: Service, tmp_path: Path, kind: PartKind
) -> None:
    other: PartKind = "kit" if kind == "safety_module" else "safety_module"
    part = keep(service, other, tmp_path)
    for part_id in ("nope", part.id):
        for path in ("", "/file"):
            answer = http.get(f"{PATHS[kind]}/{part_id}{path}")
            assert answer.status_code == 404
            assert answer.json()["type"].endswith(":part-not-found")
            assert answer.headers["content-type"] == "application/problem+json"
