"""What lies in a page's folder before its first block, and what its names stand for here.

Every page finds a tiny base and chat model, an adapter and rows of data under the names that the
pages use. A page that needs more, or another size, says so in PAGES.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.demo.safety_world.world import SafetyWorld
from app.demo.world import make_world
from tests.small_talk import ADAPTER

SHORT = "--max-new-tokens 8 --max-length 48"  # because the tiny models' context is 64 tokens
QUICK = "--budget 10 --families prune"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SETS = {
    "harmful.jsonl": "harmful_held_out",
    "benign.jsonl": "benign_held_out",
    "task.jsonl": "task_held_out",
    "h1.jsonl": "harmful_tuning",
    "b1.jsonl": "benign_tuning",
    "t1.jsonl": "task_tuning",
    "refusals.jsonl": "safety",
}


@dataclass(frozen=True)
class Furniture:
    """What is made once for all pages."""

    world: SafetyWorld
    demo: Path  # as `adapter-safety demo` leaves it


def make_furniture(folder: Path, world: SafetyWorld) -> Furniture:
    make_world(folder / "data" / "models" / "demo", folder / "adapter")
    return Furniture(world, folder)


def nothing(folder: Path, made: Furniture) -> None:
    """More than every page has."""


def unharmed(namespace: Mapping[str, Any]) -> None:
    """Nothing to try after the last block."""


@dataclass(frozen=True)
class Stage:
    stands_for: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path, Furniture], None] = nothing
    after: Callable[[Mapping[str, Any]], None] = unharmed


def furnish(folder: Path, made: Furniture) -> None:
    """What every page finds. Links, because nothing is to be written there."""
    world = made.world
    for name in ("base", "chat"):
        (folder / name).symlink_to(getattr(world, name))
    for name in ("adapter", "tuned"):
        shutil.copytree(world.adapter(ADAPTER), folder / name)
    for name, data in SETS.items():
        (folder / name).symlink_to(world.data(data))
    path = folder / "path" / "to"
    path.mkdir(parents=True)
    for name in ("base", "chat", "adapter"):
        shutil.copytree(folder / name, path / name)


def _tour(folder: Path, made: Furniture) -> None:
    """As `adapter-safety demo` and `demo --safety` would leave it."""
    shutil.copytree(made.demo, folder / "tour")
    worlds = folder / "safety" / "worlds"
    worlds.mkdir(parents=True)
    (worlds / "world-1-0-tiny").symlink_to(made.world.folder)


def _without_adapter(folder: Path, made: Furniture) -> None:
    shutil.rmtree(folder / "adapter")


def _receive_one(namespace: Mapping[str, Any]) -> None:
    """A signed body goes through, one that was changed does not."""
    taken: list[Any] = []
    namespace["receive"].__globals__.update(seen_before=lambda _: False, enqueue=taken.append)
    body, now = b'{"type": "job.succeeded"}', datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", now, body.decode()),
    }
    namespace["receive"](headers, body)
    assert taken == [{"type": "job.succeeded"}]
    with pytest.raises(WebhookVerificationError):
        namespace["receive"](headers, body + b" ")


PAGES: Mapping[str, Stage] = {
    "tutorial.md": Stage(
        {
            "--budget 12": f"{QUICK} {SHORT}",
            "--report evaluation": f"{SHORT} --report evaluation",
        },
        _tour,
    ),
    "measuring.md": Stage(
        {
            "--min-refusal 0.95": f"{QUICK} --take-nearest {SHORT} --min-refusal 0.95",
            "--min-refusal 0.9\n": f"--min-refusal 0.9 {SHORT}\n",
        }
    ),
    "salora.md": Stage(
        {"--rank 32": "--rank 6", "--task-rank 32": "--task-rank 8", "--rank 16": "--rank 4"},
        _without_adapter,
    ),
    "webhooks.md": Stage({"whsec_...": SECRET}, after=_receive_one),
    "moderation-bot.md": Stage({"--host 0.0.0.0": "--host 127.0.0.1"}),
}
