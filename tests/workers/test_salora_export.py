"""The exported adapter on the original chat model is the trained model, whatever the kit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

from app.alignment.kit import Kit
from app.domain.errors import NonFiniteTensor
from app.domain.salora import InitRecipe
from app.domain.salora_errors import AdapterDoesNotFitKit
from app.intake.manifest import read_manifest
from tests.alignment.attached import FLOAT32, layers, logits, offline, steps
from tests.workers.salora_world import (
    SHORT,
    TASK_SET,
    SaloraWorld,
    make_salora_world,
    quiet,
)
from workers.salora_export import ExportInput, export, export_warnings

SAFETY = 1e-6  # ||V_s^T dW|| / ||dW|| of what is written: float32's rounding

KITS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "gpt2": ("gpt2", {}),
    "rsLoRA with an alpha": ("llama", {"use_rslora": True, "alpha": 7.0}),
    "an alpha that is no whole number": ("qwen2", {"alpha": 2.5}),
    "ranks that some modules do not have": ("llama", {"rank": 24, "task_rank": 30}),
    "clamped ranks with rsLoRA": ("llama", {"rank": 24, "use_rslora": True}),
    "a zero start": ("llama", {"dataset": None, "initialisation": "zero"}),
    "a zero start of GPT-2": ("gpt2", {"dataset": None, "initialisation": "zero"}),
    "no task data": ("llama", {"dataset": None}),
}


@pytest.fixture(scope="module", params=KITS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    architecture, changes = KITS[request.param]
    folder = tmp_path_factory.mktemp(architecture)
    settings = {"dataset": TASK_SET, "rank": 4, "task_rank": 8, "encoding": SHORT, **changes}
    recipe = InitRecipe("0" * 64, **settings)
    with_task = recipe.dataset is not None
    return make_salora_world(folder, architecture, init=recipe, with_task=with_task)


def trained(world: SaloraWorld, folder: Path) -> tuple[PeftModel, ExportInput]:
    """Real steps, saved as a script saves them."""
    model = world.attached()
    list(steps(model, 4))
    return model.eval(), saved(model, world, folder)


def saved(model: PeftModel, world: SaloraWorld, folder: Path) -> ExportInput:
    offline(model, world).save_pretrained(str(folder / "saved"))
    (folder / "sent").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(folder / "saved" / name, folder / "sent" / name)
    manifest = read_manifest(folder / "sent")
    return ExportInput(folder / "sent", manifest, Kit.load(world.kit_folder), None)


def loaded(world: SaloraWorld, folder: Path) -> PeftModel:
    return PeftModel.from_pretrained(world.model(), str(folder)).eval()


def written(given: ExportInput, folder: Path) -> list[Any]:
    folder.mkdir()
    return export(given, folder, quiet)


def test_stock_peft_gives_the_trained_models_logits(world: SaloraWorld, tmp_path: Path) -> None:
    model, given = trained(world, tmp_path)
    rows = written(given, tmp_path / "out")
    exported = loaded(world, tmp_path / "out")
    assert (logits(model) - logits(world.model())).abs().max() > 1e-2
    assert torch.allclose(logits(exported), logits(model), atol=FLOAT32)
    halves = 1 if next(iter(given.kit.modules.values())).start is None else 2
    assert all(row.rank == halves * row.trained_rank for row in rows)
    assert all(row.safety_share < SAFETY for row in rows)
    assert all(row.error is None for row in rows)


def test_recompressed_each_module_is_off_by_the_error_that_is_reported(
    world: SaloraWorld, tmp_path: Path
) -> None:
    model, given = trained(world, tmp_path)
    rows = {row.module: row for row in written(replace(given, rank=2), tmp_path / "out")}
    exported = loaded(world, tmp_path / "out").get_base_model()
    for name, layer in layers(model):
        wanted = layer.lora_variant["default"].delta(layer, "default").detach().double()
        found = exported.get_submodule(name)
        assert isinstance(found, LoraLayer)
        delta = found.get_delta_weight("default").detach().double()
        delta = delta.T if found.fan_in_fan_out else delta
        lost = float(torch.linalg.norm(delta - wanted) / torch.linalg.norm(wanted))
        assert lost == pytest.approx(rows[name].error, abs=1e-5)
        best = torch.linalg.svdvals(wanted)
        tail = float(torch.linalg.norm(best[2:]) / torch.linalg.norm(best))
        assert rows[name].error == pytest.approx(tail, abs=1e-5)
        assert rows[name].safety_share < SAFETY


def test_the_export_is_an_adapter_that_the_gate_accepts_and_its_bytes_are_the_same_again(
    world: SaloraWorld, tmp_path: Path
) -> None:
    _, given = trained(world, tmp_path)
    for name in ("one", "two"):
        written(given, tmp_path / name)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        one, two = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        assert one == two
    manifest = read_manifest(tmp_path / "one")
    assert manifest.dropped_keys == ()
    scaling = given.kit.config["scaling"]
    assert all(module.scaling == pytest.approx(scaling) for module in manifest.modules)


# --------------------------------------------------------------------------------- what is refused
@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    return make_salora_world(tmp_path_factory.mktemp("llama"))


def given_of(llama: SaloraWorld, folder: Path, **config: Any) -> ExportInput:
    """An adapter that was not trained with the kit."""
    targets = [module.name for module in llama.kit.modules]
    settings = {"r": 4, "lora_alpha": 4, "target_modules": targets, **config}
    model = get_peft_model(llama.model(), LoraConfig(**settings))
    offline(model, llama).save_pretrained(str(folder))
    (folder / "README.md").unlink()
    return ExportInput(folder, read_manifest(folder), Kit.load(llama.kit_folder), None)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"r": 5, "lora_alpha": 5}, "the adapter has rank 5, the kit 4"),
        ({"lora_alpha": 8}, "the adapter's scaling is 2, the kit's 1"),
        ({"use_dora": True}, "no DoRA"),
        ({"target_modules": ["q_proj"]}, "only one of both has them"),
        ({"modules_to_save": ["lm_head"]}, "full weights bypass the safety module"),
    ],
)
def test_what_was_not_trained_with_the_kit_is_refused_by_module(
    llama: SaloraWorld, tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    given = given_of(llama, tmp_path / "adapter", **config)
    with pytest.raises(AdapterDoesNotFitKit, match=reason):
        written(given, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_numbers_that_are_none_are_refused_by_tensor(llama: SaloraWorld, tmp_path: Path) -> None:
    model = llama.attached()
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_B" in n)[0, 0] = torch.inf
    given = saved(model, llama, tmp_path)
    with pytest.raises(NonFiniteTensor, match="lora_B"):
        written(given, tmp_path / "out")


def test_an_untrained_adapter_says_that_nothing_was_trained(
    llama: SaloraWorld, tmp_path: Path
) -> None:
    model = llama.attached()
    given = saved(model, llama, tmp_path)
    rows = written(given, tmp_path / "out")
    assert all(row.update_norm == 0 for row in rows)
    exported = loaded(llama, tmp_path / "out")
    assert torch.allclose(logits(exported), logits(llama.model()), atol=FLOAT32)
    assert any("nothing was trained" in said for said in export_warnings(rows, None))
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_bytes())
    assert (config["r"], config["lora_alpha"]) == (8, 8)
