"""`make images`: the steps of both images, run as scripted with what the package index has now, and
one job through what they make. Takes minutes, of which torch is the most.

`tests/deploy/building.py` says what stands in for a container engine.
"""

import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.deploy.building import Container, Image, build
from tests.deploy.dockerfile import API, WORKER
from tests.factory import World, make_world
from tests.faults.processes import until
from tests.servers import RedisServer, free_port
from tests.uploads import parts


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="images-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        api, worker = (_built(path, folder) for path in (API, WORKER))
        world = make_world(folder / "models")
        redis = RedisServer()
        redis.start()
        try:
            _run_a_job(api, worker, world, redis, folder)
        finally:
            redis.remove()
            subprocess.run(["chmod", "--recursive", "u+w", str(folder)], check=True)


def _built(path: Path, folder: Path) -> Image:
    began = time.monotonic()
    image = build(path, folder / path.stem)
    image.lock()
    size = sum(f.stat().st_size for f in (image.root / "opt").rglob("*") if f.is_file())
    print(f"{path.name}: {time.monotonic() - began:.0f} s, {size / 2**20:.0f} MiB of packages")
    return image


def _run_a_job(api: Image, worker: Image, world: World, redis: RedisServer, folder: Path) -> None:
    """Both have one data volume, as in the compose file."""
    settings = {
        "ADAPTER_SAFETY_DATA_DIR": str(folder / "data"),
        "ADAPTER_SAFETY_MODEL_ROOT": str(world.base.parent),
        "ADAPTER_SAFETY_REDIS_URL": redis.url,
        "ADAPTER_SAFETY_THREADS": "1",
    }
    assert api.run("adapter-safety", "migrate", **settings).returncode == 0
    made = api.run("adapter-safety", "keys", "create", "--name", "images", **settings)
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    with ExitStack() as stack:
        serving = stack.enter_context(api.started(folder / "api.log", **settings))
        own = {"ADAPTER_SAFETY_WORKER_PORT": str(free_port())}
        working = stack.enter_context(worker.started(folder / "worker.log", **settings, **own))
        for each in (serving, working):
            each.await_health()
        client = httpx.Client(base_url=serving.url, headers=headers, timeout=60)
        _patch(stack.enter_context(client), world)
        _stop(serving, working)


def _patch(client: httpx.Client, world: World) -> None:
    adapter = client.post("/v1/adapters", files=parts(world.adapter)).json()["id"]
    body = {"adapter": adapter, "base_model": "base", "chat_model": "chat"}
    job = client.post("/v1/jobs", json=body).json()["id"]
    ended = ("succeeded", "failed", "cancelled")
    state = until(lambda: (s := client.get(f"/v1/jobs/{job}").json())["status"] in ended and s, "")
    assert state["status"] == "succeeded", state
    patched = client.get(f"/v1/jobs/{job}/adapter")
    assert patched.status_code == 200
    print(f"a job through both: succeeded, {len(patched.content)} bytes")


def _stop(serving: Container, working: Container) -> None:
    began = time.monotonic()
    codes = working.stop(within_s=60), serving.stop(within_s=20)
    assert codes[0] == 0, codes
    print(f"stopped in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
