"""Uploads over real HTTP: what is accepted, and that what is refused leaves nothing behind."""

import io
import json
import socket
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.domain.adapter import CONFIG_FILE, README_FILE, WEIGHTS_FILE
from tests.factory import World
from tests.service import Service
from tests.uploads import Parts, parts

PROBLEM = "application/problem+json"


def zipped(folder: Path, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            archive.write(folder / name, name)
    return out.getvalue()


def tarred(folder: Path, mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            archive.add(folder / name, name)
    return out.getvalue()


def test_an_adapter_is_created_once_and_found_again(http: httpx.Client, llama_world: World) -> None:
    first = http.post("/v1/adapters", files=parts(llama_world.adapter))
    again = http.post("/v1/adapters", files=parts(llama_world.adapter))
    assert first.status_code in (200, 201)  # another test may have sent it before
    assert again.status_code == 200
    assert again.json() == first.json()
    assert again.headers["location"] == f"/v1/adapters/{first.json()['id']}"
    shown = http.get(again.headers["location"])
    assert shown.json() == first.json()
    assert [m["module"] for m in shown.json()["modules"]][:2] == [
        "model.layers.0.mlp.down_proj",
        "model.layers.0.self_attn.q_proj",
    ]


def test_another_content_is_another_adapter_and_new(http: httpx.Client, llama_world: World) -> None:
    files = {**parts(llama_world.adapter), "readme": (README_FILE, b"# one of a kind\n")}
    created = http.post("/v1/adapters", files=files)
    assert created.status_code == 201
    assert set(created.json()["files"]) == {CONFIG_FILE, WEIGHTS_FILE, README_FILE}


@pytest.mark.parametrize(
    "pack",
    [
        zipped,
        lambda folder: zipped(folder, zipfile.ZIP_STORED),
        lambda folder: tarred(folder, "w"),
        lambda folder: tarred(folder, "w:gz"),
    ],
    ids=["zip", "stored zip", "tar", "tar.gz"],
)
def test_every_way_of_sending_gives_the_same_id(
    http: httpx.Client, llama_world: World, pack: Callable[[Path], bytes]
) -> None:
    plain = http.post("/v1/adapters", files=parts(llama_world.adapter)).json()["id"]
    packed = http.post("/v1/adapters", files={"archive": ("a", pack(llama_world.adapter))})
    assert packed.json()["id"] == plain


def test_adapters_are_listed_newest_first_page_by_page(
    http: httpx.Client, llama_world: World
) -> None:
    sent = []
    for text in (b"list one", b"list two"):
        files = {**parts(llama_world.adapter), "readme": (README_FILE, text)}
        sent.append(http.post("/v1/adapters", files=files).json()["id"])
    first = http.get("/v1/adapters", params={"limit": 1}).json()
    second = http.get("/v1/adapters", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [first["items"][0]["id"], second["items"][0]["id"]] == sent[::-1]


def header_of(weights: bytes) -> tuple[dict[str, object], bytes]:
    (length,) = struct.unpack("<Q", weights[:8])
    return json.loads(weights[8 : 8 + length]), weights[8 + length :]


def file_of(header: dict[str, object], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def with_config(**changes: object) -> Callable[[Parts], Parts]:
    def change(files: Parts) -> Parts:
        name, raw = files["config"]
        return {**files, "config": (name, json.dumps({**json.loads(raw), **changes}).encode())}

    return change


def with_weights(change: Callable[[bytes], bytes]) -> Callable[[Parts], Parts]:
    return lambda files: {**files, "weights": (WEIGHTS_FILE, change(files["weights"][1]))}


def overlapping(weights: bytes) -> bytes:
    header, data = header_of(weights)
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]
    return file_of(header, data)


def without(name: str) -> Callable[[Parts], Parts]:
    return lambda files: {key: value for key, value in files.items() if key != name}


def zip_of(**entries: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


def as_archive(make: Callable[[Parts], bytes]) -> Callable[[Parts], Parts]:
    return lambda files: {"archive": ("adapter.zip", make(files))}


REFUSED: dict[str, tuple[Callable[[Parts], Parts], int, str, str]] = {
    "no weights": (without("weights"), 422, "missing-file", WEIGHTS_FILE),
    "no config": (without("config"), 422, "missing-file", CONFIG_FILE),
    "nothing": (lambda _: {"readme": ("README.md", b"x")}, 422, "missing-file", CONFIG_FILE),
    "a part too many": (
        lambda files: {**files, "extra": ("x.py", b"x")},
        422,
        "invalid-field",
        "extra",
    ),
    "pickle by name": (
        lambda files: {**files, "weights": ("adapter_model.bin", b"\x80\x02.")},
        422,
        "pickle-refused",
        "adapter_model.bin",
    ),
    "pickle by content": (
        with_weights(lambda _: b"\x80\x02}q\x00." * 9),
        422,
        "pickle-refused",
        WEIGHTS_FILE,
    ),
    "truncated": (with_weights(lambda w: w[:-10]), 422, "malformed-safetensors", "cut short"),
    "padded": (with_weights(lambda w: w + b"\0" * 10), 422, "malformed-safetensors", WEIGHTS_FILE),
    "overlapping": (with_weights(overlapping), 422, "malformed-safetensors", WEIGHTS_FILE),
    "header bomb": (
        with_weights(lambda _: struct.pack("<Q", 1 << 40) + b"{}"),
        422,
        "malformed-safetensors",
        WEIGHTS_FILE,
    ),
    "empty file": (with_weights(lambda _: b""), 422, "malformed-safetensors", WEIGHTS_FILE),
    "no tensors": (with_weights(lambda _: file_of({}, b"")), 422, "empty-adapter", WEIGHTS_FILE),
    "not LoRA": (with_config(peft_type="IA3"), 422, "unsupported-adapter", "IA3"),
    "rank 0": (with_config(r=0), 422, "config-refused", "field r"),
    "rank 10^9": (with_config(r=10**9), 422, "config-refused", "field r"),
    "rank contradicts": (with_config(r=5), 422, "rank-mismatch", "down_proj"),
    "DoRA": (with_config(use_dora=True), 422, "config-refused", "use_dora"),
    "QALoRA": (with_config(use_qalora=True), 422, "unsupported-adapter", "use_qalora"),
    "config is no JSON": (
        lambda files: {**files, "config": (CONFIG_FILE, b"{")},
        422,
        "config-refused",
        CONFIG_FILE,
    ),
    "zip path trick": (
        as_archive(lambda f: zip_of(**{"../" + CONFIG_FILE: f["config"][1]})),
        422,
        "unsafe-archive",
        "..",
    ),
    "zip bomb": (
        as_archive(lambda f: zip_of(**{CONFIG_FILE: b" " * (64 << 20)})),
        413,
        "too-large",
        CONFIG_FILE,
    ),
    "zip without config": (
        as_archive(lambda f: zip_of(**{WEIGHTS_FILE: f["weights"][1]})),
        422,
        "missing-file",
        CONFIG_FILE,
    ),
    "not an archive": (as_archive(lambda _: b"hello"), 422, "unsafe-archive", "first bytes"),
    "archive and files": (
        lambda files: {**files, "archive": ("a.zip", b"PK\x03\x04")},
        422,
        "invalid-field",
        "config",
    ),
}


def stored_files(service: Service) -> set[Path]:
    return {p for name in ("artifacts", "staging") for p in (service.data / name).rglob("*")}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_uploads_are_refused_by_name_and_leave_nothing(
    service: Service, http: httpx.Client, llama_world: World, name: str
) -> None:
    change, status, code, culprit = REFUSED[name]
    http.get("/readyz")  # it writes its own probe once
    before, listed = stored_files(service), http.get("/v1/adapters").json()
    answer = http.post("/v1/adapters", files=change(parts(llama_world.adapter)))
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status)
    assert answer.headers["content-type"] == PROBLEM
    assert problem["type"] == f"urn:adapter-safety:problem:{code}"
    assert culprit in problem["detail"]
    assert str(service.data) not in answer.text
    assert stored_files(service) == before
    assert http.get("/v1/adapters").json() == listed
    assert http.get("/readyz").status_code == 200


BOUNDARY = {"Content-Type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="config"; filename="c"\r\n\r\n'


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"hello"),
        ({"Content-Type": "application/json"}, b"{}"),
        ({"Content-Type": "multipart/form-data"}, b"--b--"),
        ({"Content-Type": "multipart/form-data; boundary=" + "b" * 500}, b"--b--"),
        (BOUNDARY, b""),
        (BOUNDARY, b"nonsense"),
        (BOUNDARY, PART + b"{}"),
        (BOUNDARY, PART + b"{}\r\n--b\r\n"),
        (BOUNDARY, b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
        (BOUNDARY, b"--b\r\nNo colon here\r\n\r\nx\r\n--b--\r\n"),
        (BOUNDARY, b"--b\r\n" + b"X" * 100_000 + b": y\r\n\r\nx\r\n--b--\r\n"),
        (BOUNDARY, (PART.replace(b"config", b"n%d") % 1 + b"\r\n") * 40 + b"--b--\r\n"),
    ],
)
def test_broken_multipart_is_a_problem_and_never_a_crash(
    service: Service, http: httpx.Client, headers: dict[str, str], body: bytes
) -> None:
    http.get("/readyz")
    before = stored_files(service)
    answer = http.post("/v1/adapters", content=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == PROBLEM
    assert stored_files(service) == before


def test_a_part_that_comes_twice_is_refused(http: httpx.Client) -> None:
    body = (PART + b"{}\r\n") * 2 + b"--b--\r\n"
    answer = http.post("/v1/adapters", content=body, headers=BOUNDARY)
    assert answer.status_code == 422
    assert "config" in answer.json()["detail"]


def test_a_body_over_the_limit_is_refused_before_it_is_read(service: Service) -> None:
    url = httpx.URL(service.url)
    head = f"POST /v1/adapters HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 50}\r\n"
    with socket.create_connection((url.host, url.port), timeout=10) as connection:
        connection.sendall(f"{head}Content-Type: {BOUNDARY['Content-Type']}\r\n\r\n".encode())
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 413")
    assert PROBLEM in answer


@pytest.mark.parametrize("adapter", ["nope", "..", "%2e%2e%2fetc", "a" * 64, "%00x", "é"])
def test_an_unknown_adapter_is_a_404_problem(http: httpx.Client, adapter: str) -> None:
    answer = http.get(f"/v1/adapters/{adapter}")
    assert answer.status_code == 404 or adapter == ".."
