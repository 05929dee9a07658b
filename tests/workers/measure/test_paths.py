"""Each step of each family is, byte for byte, what a patch job with its method writes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from app.alignment.safety_module import SAFETY_MODULE_FILE, SafetyModule
from app.domain.adapter import WEIGHTS_FILE
from app.domain.evaluation import DEFAULT_FAMILIES, FamilyName, FrontierRecipe, Sets
from app.domain.method import Method
from app.domain.salora import SafetyModuleRecipe
from app.intake.manifest import read_manifest
from app.jobs.search import Setting
from tests.chat_models import letters
from tests.factory import World, make_world
from tests.workers.breadth import ALL, EXPERTS, PEFTS_WARNINGS, Q_V
from tests.workers.breadth_models import checkpoint
from tests.workers.salora_world import CPU, SAFETY_SET, SHORT, quiet, refusals
from workers.measure.paths import Paths, make_paths
from workers.output import write_patched_adapter
from workers.run import NamedCheckpoint, PatchInput
from workers.safety_module import make_safety_module

pytestmark = list(PEFTS_WARNINGS)

SETS = Sets(harmful="1" * 64, task="2" * 64)
RECIPE = FrontierRecipe(SETS)
PART = "3" * 64
KINDS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "LoRA": ("llama", {}),
    "DoRA": ("llama", {**ALL, "use_dora": True}),
    "lora_bias": ("qwen2", {**Q_V, "lora_bias": True}),
    "experts": ("mixtral", {**EXPERTS, "target_modules": ["q_proj"]}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "float64": ("llama", {"adapter_dtype": torch.float64}),
    "bfloat16": ("llama", {"adapter_dtype": torch.bfloat16}),
}


def given(world: World) -> PatchInput:
    models = (checkpoint(world.base), checkpoint(world.chat))
    base, chat = (NamedCheckpoint(n, m) for n, m in zip(("b", "c"), models, strict=True))
    return PatchInput(world.adapter, read_manifest(world.adapter), base, chat, Method())


def paths_of(
    patch: PatchInput, work: Path, families: Sequence[FamilyName] = DEFAULT_FAMILIES
) -> Paths:
    work.mkdir()
    part = PART if "salora" in families else None
    recipe = replace(RECIPE, families=tuple(families), safety_module=part)
    return make_paths(patch, recipe, work, threads=1, on_module=quiet, shelves=None)


def written(patch: PatchInput, paths: Paths, setting: Setting, out: Path) -> dict[str, Tensor]:
    out.mkdir(parents=True)
    job = replace(patch, method=paths.method(setting))
    write_patched_adapter(job, out, threads=1, on_module=quiet)
    return load_file(out / WEIGHTS_FILE)


def assert_same_bytes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name


def with_every_bit(world: World) -> None:
    """Numbers that float32 does not hold."""
    path = world.adapter / WEIGHTS_FILE
    tensors = {name: tensor / 3 for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_is_byte_for_byte_what_its_method_makes_a_patch_job_write(
    kind: str, tmp_path: Path
) -> None:
    architecture, lora = KINDS[kind]
    world = make_world(tmp_path, architecture, **lora)
    if kind == "float64":
        with_every_bit(world)
    patch = given(world)
    paths = paths_of(patch, tmp_path / "work")
    assert paths.steps == len(patch.manifest.modules)
    for family in DEFAULT_FAMILIES:
        steps = {1, paths.steps // 3, paths.steps // 2, paths.steps}
        for step in steps if family == "scale" else {1, paths.steps}:
            setting = Setting(family, step)
            out = tmp_path / "out" / f"{family}-{step}"
            assert_same_bytes(paths.tensors(setting), written(patch, paths, setting, out))


def test_step_0_is_the_adapter_itself_in_every_family(tmp_path: Path) -> None:
    patch = given(make_world(tmp_path, **ALL, use_dora=True))
    paths, own = paths_of(patch, tmp_path / "work"), load_file(patch.folder / WEIGHTS_FILE)
    for family in DEFAULT_FAMILIES:
        assert_same_bytes(paths.tensors(Setting(family, 0)), own)


def test_the_default_is_what_the_published_threshold_selects(tmp_path: Path) -> None:
    patch = given(make_world(tmp_path, **ALL))
    paths = paths_of(patch, tmp_path / "work")
    assert paths.default
    out = tmp_path / "out"
    out.mkdir()
    report = write_patched_adapter(patch, out, threads=1, on_module=quiet)  # threshold 0.5
    chosen = [layer for layer in report.layers if layer.decision == "projected"]
    assert paths.default == Setting("approximate", len(chosen))
    assert_same_bytes(paths.tensors(paths.default), load_file(out / WEIGHTS_FILE))
    assert paths_of(patch, tmp_path / "other", ["scale"]).default is None


def test_modules_without_an_update_are_no_step(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    path = world.adapter / WEIGHTS_FILE
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if "layers.0" in name and "lora_B" in name:
            tensor.zero_()
    save_file(tensors, path, {"format": "pt"})
    patch = given(world)
    paths = paths_of(patch, tmp_path / "work")
    assert paths.steps == len(patch.manifest.modules) / 2
    for family in DEFAULT_FAMILIES:
        last = Setting(family, paths.steps)
        assert_same_bytes(paths.tensors(last), written(patch, paths, last, tmp_path / family))


def test_salora_walks_by_a_safety_module(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    letters().save_pretrained(world.chat)
    (tmp_path / "safety").mkdir()
    targets = ("q_proj", "v_proj", "down_proj")
    recipe = SafetyModuleRecipe(SAFETY_SET, targets, rank=6, encoding=SHORT)
    chat = NamedCheckpoint("c", checkpoint(world.chat))
    make_safety_module(chat, refusals(), recipe, tmp_path / "safety", CPU, quiet)
    module = SafetyModule.load(tmp_path / "safety" / SAFETY_MODULE_FILE)
    patch = replace(given(world), safety=module)
    paths = paths_of(patch, tmp_path / "work", ["salora", "complement"])
    assert paths.default is None
    for step in (1, paths.steps):
        setting = Setting("salora", step)
        assert paths.method(setting).safety_module == PART
        wanted = written(patch, paths, setting, tmp_path / f"out-{step}")
        assert_same_bytes(paths.tensors(setting), wanted)
