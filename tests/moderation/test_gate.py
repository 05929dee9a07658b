"""A gate in the policy, with models that answer: what was measured decides too."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.config import Settings
from app.domain.adapter import CONFIG_FILE
from tests.hub.server import LocalHub
from tests.moderation.bench import NONE, SECRET, Bench
from tests.small_talk import ADAPTER

if TYPE_CHECKING:
    from app.demo.safety_world.world import SafetyWorld

JSONL = {"Content-Type": "application/jsonl"}
SHORT = {"max_new_tokens": 8, "max_length": 48}


@pytest.fixture
def talking(
    sqlite_with_schema: Path,
    redis_url: str,
    local_hub: LocalHub,
    small_talk: "SafetyWorld",
    tmp_path: Path,
) -> Iterator[Bench]:
    (tmp_path / "records.sqlite3").write_bytes(sqlite_with_schema.read_bytes())
    settings = Settings(
        data_dir=tmp_path / "data",
        database_url=f"sqlite:///{tmp_path}/records.sqlite3",
        redis_url=redis_url,
        model_root=small_talk.base.parent,
        threads=1,
        auth="none",
        hook_secret=SECRET,  # type: ignore[arg-type] # because pydantic makes it one
        policy=tmp_path / "policy.yaml",
    )
    bench = Bench(settings, local_hub, tmp_path / "policy.yaml")
    yield bench
    bench.close()


def uploaded(bench: Bench, path: Path) -> str:
    query = {"responses": "optional"}
    answer = bench.http.post("/v1/datasets", content=path.read_bytes(), headers=JSONL, params=query)
    found: str = answer.json()["id"]
    return found


def unlearnt(adapter: Path, folder: Path) -> Path:
    """The adapter, twenty times as strong: it has unlearnt every refusal."""
    shutil.copytree(adapter, folder)
    config = json.loads((folder / CONFIG_FILE).read_text())
    stronger = {**config, "lora_alpha": 20 * config["lora_alpha"]}
    (folder / CONFIG_FILE).write_text(json.dumps(stronger))
    return folder


def test_an_adapter_that_refuses_less_is_for_review_though_nothing_was_to_be_projected(
    talking: Bench, small_talk: "SafetyWorld", tmp_path: Path
) -> None:
    harmful = uploaded(talking, small_talk.data("harmful_tuning"))
    changes: dict[str, Any] = {
        "pairs": [{"match": "*", "base": "base", "chat": "chat"}],
        "method": NONE,
        "require": "no_worse",
        "gate": {"harmful": harmful, **SHORT},
    }
    talking.write_policy(**changes)
    done = talking.settled(unlearnt(small_talk.adapter(ADAPTER), tmp_path / "unlearnt"))
    assert (done.verdict, done.numbers["projected"]) == ("review", 0), done
    assert "less safe than the chat model" in done.why
