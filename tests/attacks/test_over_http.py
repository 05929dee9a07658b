"""Every hostile file, uploaded to the running service: its own problem, and nothing kept."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from tests.attacks.corpus import corpus
from tests.attacks.hostile import Hostile
from tests.intake.files import GOOD_FILES
from tests.service import Service, running

NAMES = {"config": CONFIG_FILE, "weights": WEIGHTS_FILE}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, model_root: Path) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("attacked"), model_root) as service:
        yield service


def files(form: str, attack: Hostile) -> dict[str, tuple[str, bytes]]:
    if form == "archive":
        return {"archive": ("adapter.zip", attack.make())}
    sound = {part: (name, GOOD_FILES[name]) for part, name in NAMES.items()}
    return {**sound, form: (NAMES[form], attack.make())}


def test_every_hostile_upload_is_answered_with_its_problem_and_leaves_nothing(
    empty: Service,
) -> None:
    with httpx.Client(base_url=empty.url, timeout=60) as http:
        for form, attack in corpus():
            answer = http.post("/v1/adapters", files=files(form, attack))
            assert 400 <= answer.status_code < 500, attack.name
            assert answer.headers["content-type"] == "application/problem+json", attack.name
            assert answer.json()["type"] == f"urn:adapter-safety:problem:{attack.error.code}"
            assert str(empty.data) not in answer.text, attack.name
        assert http.get("/v1/adapters").json()["items"] == []
    assert list((empty.data / "staging").iterdir()) == []
    assert list((empty.data / "artifacts").rglob("sha256/*/*")) == []
