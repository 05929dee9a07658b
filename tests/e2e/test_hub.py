"""Black box, with a hub: `adapter-safety up` and the command line, told by `HF_ENDPOINT` alone."""

import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from tests.hub.server import LocalHub
from tests.hub_models import ADAPTER, BASE, CHAT, HubWorld, publish
from tests.service import running
from tests.uploads import parts


@pytest.fixture(scope="module")
def hub(hub_world: HubWorld) -> Iterator[LocalHub]:
    with LocalHub() as hub:
        publish(hub, hub_world)
        yield hub
        assert not hub.crashes


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, hub: LocalHub, hub_world: HubWorld
) -> Iterator[httpx.Client]:
    settings = {"ADAPTER_SAFETY_MAX_UPLOAD_BYTES": str(1 << 20), **hub.environment()}
    with (
        running(tmp_path_factory.mktemp("up"), hub_world.root, **settings) as service,
        httpx.Client(base_url=service.url, timeout=60) as http,
    ):
        yield http


def take(client: httpx.Client, repo_id: str, revision: str | None = None) -> httpx.Response:
    return client.post("/v1/adapters", json={"hub": {"repo_id": repo_id, "revision": revision}})


def weights_in(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        return packed.read(WEIGHTS_FILE)


def test_an_adapter_from_the_hub_is_the_one_that_an_upload_makes(
    client: httpx.Client, hub: LocalHub, hub_world: HubWorld
) -> None:
    taken = take(client, ADAPTER)
    assert taken.status_code == 201, taken.text
    assert taken.json()["hub"] == {"repo_id": ADAPTER, "revision": hub.sha(ADAPTER)}
    assert take(client, ADAPTER, "main").status_code == 200
    uploaded = client.post("/v1/adapters", files=parts(hub_world.adapter))
    assert uploaded.status_code in (200, 201)
    own = {"README.md"}  # which the folder's parts leave out
    assert set(taken.json()["files"]) - own == set(uploaded.json()["files"])
    assert taken.headers["location"] == f"/v1/adapters/{taken.json()['id']}"
    assert client.get(taken.headers["location"]).json()["modules"] == taken.json()["modules"]


def test_a_job_by_ids_gives_the_same_weights_as_from_folders_and_reads_a_share(
    client: httpx.Client, hub: LocalHub, hub_world: HubWorld
) -> None:
    adapter = take(client, ADAPTER).json()["id"]
    found = {}
    for base, chat in ((BASE, CHAT), ("local/base", "local/chat")):
        body = {"kind": "patch", "adapter": adapter, "base_model": base, "chat_model": chat}
        made = client.post(
            "/v1/jobs",
            json={**body, "method": {"name": "safe_lora", "select": {"by": "all"}}},
            headers={"Prefer": "wait=60"},
        )
        job = client.get(made.headers.get("location", made.headers.get("content-location", "")))
        assert job.json()["status"] == "succeeded", job.text
        found[base] = weights_in(client.get(f"/v1/jobs/{job.json()['id']}/adapter").content)
        expected = {BASE: hub.sha(BASE), CHAT: hub.sha(CHAT)} if base == BASE else {}
        assert job.json()["revisions"] == expected
    assert found[BASE] == found["local/base"]
    assert hub.log.bytes_of(BASE) < 0.2 * hub_world.weights_bytes(hub_world.base)


def bad_repositories(hub: LocalHub, world: HubWorld) -> dict[str, tuple[int, str]]:
    config, weights = (world.adapter / name for name in (CONFIG_FILE, WEIGHTS_FILE))
    hub.create("org/gated", gated_to=[])
    hub.commit("org/gated", {CONFIG_FILE: config, WEIGHTS_FILE: weights})
    hub.create("org/pickled")
    hub.commit("org/pickled", {CONFIG_FILE: config, "adapter_model.bin": b"x"})
    hub.create("org/without-config")
    hub.commit("org/without-config", {WEIGHTS_FILE: weights})
    hub.create("org/broken")
    hub.commit("org/broken", {CONFIG_FILE: config, WEIGHTS_FILE: weights.read_bytes()[:-7]})
    hub.create("org/large")
    hub.commit("org/large", {CONFIG_FILE: config, WEIGHTS_FILE: bytes(2 << 20)})
    return {
        "org/gated": (422, "repository-gated"),
        "org/nowhere": (422, "repository-not-found"),
        "org/pickled": (422, "pickle-refused"),
        "org/without-config": (422, "missing-file"),
        "org/broken": (422, "malformed-safetensors"),
        "org/large": (413, "too-large"),
        "../etc": (422, "invalid-field"),
        CHAT: (422, "missing-file"),
    }


def test_what_is_no_adapter_is_told_as_what_it_is_and_nothing_is_kept(
    client: httpx.Client, hub: LocalHub, hub_world: HubWorld
) -> None:
    before = client.get("/v1/adapters").json()
    for repo_id, (status, code) in bad_repositories(hub, hub_world).items():
        answer = take(client, repo_id)
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        found = (answer.status_code, answer.json()["type"].rpartition(":")[2])
        assert found == (status, code), repo_id
    assert client.get("/v1/adapters").json() == before


BAD_BODIES: list[tuple[Any, int, str]] = [
    (b"{", 400, "malformed-request"),
    (b"[]", 422, "invalid-field"),
    ({"hub": {}}, 422, "invalid-field"),
    ({"hub": {"repo_id": "org/a", "token": "x"}}, 422, "invalid-field"),
    ({"hub": {"repo_id": "org/a", "revision": "a..b"}}, 422, "invalid-field"),
    (b" " * (1 << 15), 413, "too-large"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD_BODIES)
def test_a_body_that_names_no_repository_is_refused(
    client: httpx.Client, hub: LocalHub, body: Any, status: int, code: str
) -> None:
    hub.log.clear()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(
        "/v1/adapters", content=content, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (status, code)
    assert hub.log.requests() == []


def test_a_hub_that_is_down_is_told_as_a_part_that_does_not_answer(
    client: httpx.Client, hub: LocalHub
) -> None:
    hub.faults.down.set()
    answer = take(client, ADAPTER)
    hub.faults.down.clear()
    assert (answer.status_code, answer.json()["part"]) == (503, "hub")
    assert "retry-after" in answer.headers


def test_imports_that_wait_for_the_hub_keep_nobody_else_waiting(
    client: httpx.Client, hub: LocalHub
) -> None:
    go_on = threading.Event()
    hub.faults.hold(go_on, repo=ADAPTER)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(take, client, ADAPTER) for _ in range(8)]
        done, waiting = wait(asked, timeout=20, return_when=FIRST_COMPLETED)
        while len(waiting) > 2:
            done, waiting = wait(asked, timeout=0.1)
        assert client.get("/v1/jobs", timeout=5).status_code == 200
        go_on.set()
    hub.faults.clear()
    answers = sorted(each.result().status_code for each in asked)
    assert answers == [200, 200, *[429] * 6]
    busy = next(each.result() for each in done if each.result().status_code == 429)
    assert busy.json()["type"].endswith(":imports-busy")
    assert "retry-after" in busy.headers


def command(hub: LocalHub, data: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **hub.environment(), "ADAPTER_SAFETY_DATA_DIR": str(data)}
    line = [sys.executable, "-c", "from app.cli import main; main()", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, env=environment)


def test_the_command_line_takes_ids_for_all_three(
    hub: LocalHub, hub_world: HubWorld, tmp_path: Path
) -> None:
    hub.log.clear()
    there = command(
        hub, tmp_path / "data", "patch", ADAPTER, "--base-model", f"{BASE}@main",
        "--chat-model", CHAT, "--all", "--out", tmp_path / "there",
    )  # fmt: skip
    here = command(
        hub, tmp_path / "data", "patch", hub_world.adapter, "--base-model", hub_world.base,
        "--chat-model", hub_world.chat, "--all", "--out", tmp_path / "here",
    )  # fmt: skip
    assert (there.returncode, here.returncode) == (0, 0), there.stderr + here.stderr
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert hub.log.bytes_of(CHAT) < 0.2 * hub_world.weights_bytes(hub_world.chat)


@pytest.mark.parametrize("name", ["org/nowhere", "org/closed", f"{CHAT}@nowhere"])
def test_the_command_line_says_which_model_it_cannot_have(
    hub: LocalHub, hub_world: HubWorld, tmp_path: Path, name: str
) -> None:
    if name == "org/closed":
        hub.create(name, gated_to=[])
        hub.commit(name, {"config.json": b"{}", "model.safetensors": b"x" * 99})
    done = command(
        hub, tmp_path, "patch", ADAPTER, "--base-model", BASE, "--chat-model", name,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 2
    assert name.partition("@")[0] in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
