"""`bench`: a service that moderates a hub of the test's own, on both databases."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import Settings
from app.domain.adapter import CONFIG_FILE
from tests.factory import World
from tests.hub.server import LocalHub
from tests.moderation.bench import SECRET, Bench


@pytest.fixture
def bench(
    database_url: str, redis_url: str, local_hub: LocalHub, model_root: Path, tmp_path: Path
) -> Iterator[Bench]:
    settings = Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        redis_url=redis_url,
        model_root=model_root,
        threads=1,
        auth="none",
        hook_secret=f"older, {SECRET}",  # type: ignore[arg-type] # because pydantic makes it one
        policy=tmp_path / "policy.yaml",
    )
    made = Bench(settings, local_hub, tmp_path / "policy.yaml")
    yield made
    made.close()


@pytest.fixture
def adapter(llama_world: World) -> Path:
    return llama_world.adapter


@pytest.fixture
def stranger(llama_world: World, tmp_path: Path) -> Path:
    """An adapter of a base model that the policy does not know, by a hostile name."""
    folder = tmp_path / "stranger"
    shutil.copytree(llama_world.adapter, folder)
    config = json.loads((folder / CONFIG_FILE).read_text())
    name = "=evil/@everyone <b>| https://evil.example"
    (folder / CONFIG_FILE).write_text(json.dumps({**config, "base_model_name_or_path": name}))
    return folder
