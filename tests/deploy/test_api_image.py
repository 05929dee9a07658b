"""The API's image, its steps run as scripted: built, started, asked, stopped."""

from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import httpx
import pytest

from tests.deploy.building import Image, build
from tests.deploy.dockerfile import API, ROOT
from tests.deploy.wheelhouse import make_wheelhouse


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Built from wheels of what is installed here; `make images` takes the package index's."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "wheels").mkdir()
    listed = (ROOT / "docker" / "api-requirements.txt").read_text().splitlines()
    wanted = [line for line in listed if line[:1].isalpha()]
    make_wheelhouse(folder / "wheels", [*wanted, "hatchling"])
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "wheels")}
    image = build(API, folder, **offline)
    image.lock()
    yield image
    for path in image.root.rglob("*"):  # so that pytest can clear up
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def test_the_image_serves_is_healthy_and_stops_at_once(
    image: Image, redis_url: str, tmp_path: Path
) -> None:
    settings = {"ADAPTER_SAFETY_REDIS_URL": redis_url}
    waiting = image.run("adapter-safety", "migrate", "--check", **settings)
    assert (waiting.returncode, waiting.stderr[:30]) == (3, "error: the database's schema i")
    migrated = image.run("adapter-safety", "migrate", **settings)
    assert migrated.stdout == "the database is up to date\n", migrated.stderr
    assert image.run("adapter-safety", "migrate", "--check", **settings).returncode == 0
    with image.started(tmp_path / "log", **settings) as container:
        container.await_health()
        assert httpx.get(f"{container.url}/readyz").json()["parts"]["database"] is True
        assert httpx.get(f"{container.url}/v1/jobs").status_code == 401
        assert container.stop(within_s=15) in (0, -SIGTERM)  # uvicorn ends by it, having shut down
    told = (tmp_path / "log").read_text()
    assert "Traceback" not in told
    assert "Application shutdown complete" in told
    assert not container.is_healthy()


@pytest.mark.parametrize("name", ["torch", "transformers", "peft", "safetensors", "pip"])
def test_what_the_api_does_not_need_is_not_there(image: Image, name: str) -> None:
    done = image.run("python", "-c", f"import {name}")
    assert f"No module named '{name}'" in done.stderr


def test_a_container_writes_to_its_data_and_to_nothing_of_the_image(image: Image) -> None:
    def write(place: str) -> str:
        path = image.inside(place)
        return image.run("python", "-c", f"open({path!r}, 'w').write('x')").stderr

    assert write("/data/x") == ""
    for place in ("/opt/venv/bin/x", "/opt/venv/pyvenv.cfg", "/opt/x"):
        assert "PermissionError" in write(place)


def test_the_user_of_the_image_is_known_in_it_and_has_the_data_folder(image: Image) -> None:
    passwd = (image.root / "etc" / "passwd").read_text()
    assert not passwd or passwd.startswith("adapter-safety:x:10001:10001::/data:")
