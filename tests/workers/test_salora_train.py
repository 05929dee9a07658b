"""What a training takes of a kit's folder, and what it says of itself."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from app.domain.errors import Refused
from app.domain.salora import TrainRecipe
from app.domain.salora_report import SaloraReport
from tests.workers.salora_world import CPU, SaloraWorld, make_salora_world, quiet, task
from workers.salora_train import TrainJobInput, train_and_export


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    return make_salora_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def kit(world: SaloraWorld, tmp_path: Path) -> Path:
    """One of its own."""
    return shutil.copytree(world.kit_folder, tmp_path / "kit")


def configured(kit: Path, **changes: Any) -> Path:
    known = json.loads((kit / CONFIG_FILE).read_bytes())
    (kit / CONFIG_FILE).write_text(json.dumps({**known, **changes}))
    return kit


def trained(
    world: SaloraWorld, kit: Path, tmp_path: Path, recipe: TrainRecipe | None = None
) -> SaloraReport:
    (tmp_path / "out").mkdir()
    given = TrainJobInput(world.chat, kit, task(8), recipe or world.recipe())
    return train_and_export(given, tmp_path / "out", tmp_path / "work", CPU, quiet, quiet)


def test_what_a_kits_configuration_names_is_not_imported(
    world: SaloraWorld, kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named_by_a_stranger.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    mapping = {"parent_library": "named_by_a_stranger", "base_model_class": "A"}
    configured(kit, auto_mapping=mapping, megatron_core="named_by_a_stranger")
    trained(world, kit, tmp_path)
    assert "named_by_a_stranger" not in sys.modules


@pytest.mark.parametrize(
    "changes",
    [
        {"init_lora_weights": "pissa"},  # changes the chat model's own weights
        {"modules_to_save": ["lm_head"]},
        {"use_dora": True},
        {"peft_type": "IA3"},
        {"layer_replication": [[0, 2]]},
        {"lora_alpha": 8},
    ],
)
@pytest.mark.parametrize("plain", [False, True], ids=["SaLoRA", "plain LoRA"])
def test_a_kit_whose_adapter_is_of_another_kind_is_refused(
    world: SaloraWorld, kit: Path, tmp_path: Path, changes: dict[str, Any], plain: bool
) -> None:
    with pytest.raises(Refused):
        trained(world, configured(kit, **changes), tmp_path, world.recipe(plain_lora=plain))


def test_a_kit_with_a_pickle_in_place_of_its_weights_is_refused(
    world: SaloraWorld, kit: Path, tmp_path: Path
) -> None:
    (kit / WEIGHTS_FILE).rename(kit / "adapter_model.bin")
    with pytest.raises(Refused, match=WEIGHTS_FILE):
        trained(world, kit, tmp_path)


def test_a_warm_up_that_never_ends_is_said(world: SaloraWorld, kit: Path, tmp_path: Path) -> None:
    report = trained(world, kit, tmp_path, world.recipe(warmup_steps=50))
    assert any("The learning rate never became full" in said for said in report.warnings)
