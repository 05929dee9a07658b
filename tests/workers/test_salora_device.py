"""SaLoRA where the model runs on a device: the same numbers as on the CPU."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer

from app.alignment.kit import Kit
from app.alignment.safety_module import SAFETY_MODULE_FILE, SafetyModule
from app.domain.salora import InitRecipe, SafetyModuleRecipe
from tests.alignment.attached import GUARANTEE
from tests.alignment.test_leading import angle
from tests.workers.salora_world import (
    SAFETY_SET,
    SHORT,
    TARGETS,
    TASK_SET,
    SaloraWorld,
    make_salora_world,
    quiet,
    refusals,
    task,
)
from workers.compute import Compute
from workers.language_models import load_model
from workers.safety_module import make_safety_module
from workers.salora_init import InitInput, make_kit
from workers.training import train

ANGLE = 1e-3  # the model's float32 products differ between devices


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    return make_salora_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def compute(request: pytest.FixtureRequest) -> Compute:
    return Compute(threads=1, device=torch.device(request.param))


def test_safety_modules_and_kits_span_what_the_cpus_do(
    world: SaloraWorld, compute: Compute, tmp_path: Path
) -> None:
    for name in ("module", "kit"):
        (tmp_path / name).mkdir()
    recipe = SafetyModuleRecipe(SAFETY_SET, TARGETS["llama"], rank=6, encoding=SHORT)
    make_safety_module(world.chat, refusals(), recipe, tmp_path / "module", compute, quiet)
    module = SafetyModule.load(tmp_path / "module" / SAFETY_MODULE_FILE)
    for name, v in world.module.bases.items():
        assert angle(module.bases[name], v) < ANGLE
    start = InitRecipe(world.safety.id, TASK_SET, rank=4, task_rank=8, encoding=SHORT)
    given = InitInput(world.chat, world.module, task(), start)
    make_kit(given, tmp_path / "kit", compute, quiet)
    here, there = Kit.load(world.kit_folder), Kit.load(tmp_path / "kit")
    for name, fixed in here.modules.items():
        other = there.modules[name].start
        assert fixed.start is not None
        assert other is not None
        assert torch.allclose(fixed.start.b @ fixed.start.a, other.b @ other.a, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_keeps_the_guarantee(
    world: SaloraWorld, compute: Compute, tmp_path: Path, dtype: str
) -> None:
    model = load_model(world.chat, dtype, compute.device)  # type: ignore[arg-type] # one of its names
    given = replace(world.training(world.recipe(epochs=2)), model=model)
    trained = train(given, tmp_path, quiet, quiet)
    assert trained.training.curve[-1].loss < trained.training.curve[0].loss
    attached = [module for module in given.model.modules() if isinstance(module, LoraLayer)]
    assert len(attached) == len(world.kit.modules)  # PEFT has put its layers into the model
    for layer in attached:
        variant = layer.lora_variant["default"]
        delta = variant.delta(layer, "default").double().detach().cpu()
        inside = variant.kit.safety.double().T @ delta
        assert torch.linalg.norm(inside) < GUARANTEE * torch.linalg.norm(delta)
