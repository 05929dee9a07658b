"""A safety module put on a trained adapter: the pipeline against the dense float64 formula."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from app.alignment.safety_module import NO_BASIS
from app.domain.method import Method, Selection
from app.domain.report import LayerReport, Report
from app.intake.manifest import read_manifest
from tests.factory import save_adapter
from tests.workers.salora_world import TARGETS, SaloraWorld, make_salora_world
from workers.pipeline import examine, patch, score
from workers.run import PatchInput, Run

TOLERANCE = 1e-5  # of B, relative: what is written is float32


@pytest.fixture(scope="module", params=TARGETS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    made = make_salora_world(tmp_path_factory.mktemp(request.param), request.param)
    torch.manual_seed(5)
    save_adapter(made.model(), made.safety_folder.parent / "adapter", request.param)
    return made


def adapter_of(world: SaloraWorld) -> Path:
    return world.safety_folder.parent / "adapter"


def given(world: SaloraWorld, select: Selection, **changes: object) -> PatchInput:
    method = Method(name="salora", safety_module=world.safety.id, select=select, **changes)  # type: ignore[arg-type]
    folder = adapter_of(world)
    (folder / "README.md").unlink(missing_ok=True)
    manifest = read_manifest(folder)
    return PatchInput(folder, manifest, None, world.chat, method, world.module)


def patched(given: PatchInput, out: Path) -> tuple[Report, dict[str, Tensor]]:
    out.mkdir()
    report = patch(given, out, threads=1, on_module=lambda _: None)
    return report, load_file(out / "adapter_model.safetensors")


def row(report: Report, module: str) -> LayerReport:
    return next(layer for layer in report.layers if layer.module == module)


EVERY = Selection("all", None)


def test_b_becomes_c_b_and_the_numbers_are_the_formulas(world: SaloraWorld, tmp_path: Path) -> None:
    inputs = given(world, EVERY)
    before = load_file(adapter_of(world) / "adapter_model.safetensors")
    report, after = patched(inputs, tmp_path / "out")
    for name, v in world.module.bases.items():
        a, b = (before[f"base_model.model.{name}.lora_{x}.weight"].double() for x in "AB")
        c = torch.eye(v.shape[0]).double() - v.double() @ v.double().T
        update, left = b @ a, c @ b @ a
        layer = row(report, name)
        norm = torch.linalg.norm(update)
        assert layer.decision == "projected"
        found = after[f"base_model.model.{name}.lora_B.weight"].double()
        assert torch.linalg.norm(found - c @ b) < TOLERANCE * torch.linalg.norm(b)
        assert layer.cosine == pytest.approx(
            float((update * left).sum() / norm / torch.linalg.norm(left))
        )
        assert layer.retained_energy == pytest.approx(float(torch.linalg.norm(left) / norm))
        share = float(torch.linalg.norm(v.double().T @ update) / norm)
        assert layer.safety_share == pytest.approx(share, rel=1e-5)
        assert layer.alignment_norm is None
        assert layer.alignment is None
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"base_model.model.{name}.lora_B.weight" for name in world.module.bases}


def test_peft_loads_it_and_nothing_moves_along_the_safety_directions(
    world: SaloraWorld, tmp_path: Path
) -> None:
    inputs = given(world, EVERY)
    patched(inputs, tmp_path / "out")
    (tmp_path / "out" / "adapter_config.json").write_bytes(
        (adapter_of(world) / "adapter_config.json").read_bytes()
    )
    model = PeftModel.from_pretrained(world.model(), str(tmp_path / "out"))
    for name, v in world.module.bases.items():
        layer = model.get_base_model().get_submodule(name)
        delta = layer.get_delta_weight("default").detach().double()
        delta = delta.T if layer.fan_in_fan_out else delta
        assert torch.linalg.norm(v.double().T @ delta) < 1e-5 * torch.linalg.norm(delta)


def test_modules_without_a_basis_are_skipped_and_never_called_screened(
    world: SaloraWorld, tmp_path: Path
) -> None:
    inputs = given(world, EVERY)
    first, *others = world.module.bases
    less = replace(world.module, bases={name: world.module.bases[name] for name in others})
    report, after = patched(replace(inputs, safety=less), tmp_path / "out")
    assert (row(report, first).decision, row(report, first).reason) == ("skipped", NO_BASIS)
    assert row(report, first).cosine is None
    assert report.verdict == "review"
    before = load_file(adapter_of(world) / "adapter_model.safetensors")
    name = f"base_model.model.{first}.lora_B.weight"
    assert torch.equal(before[name], after[name])


def test_a_basis_of_another_width_is_no_basis(world: SaloraWorld, tmp_path: Path) -> None:
    inputs = given(world, EVERY)
    first, *_ = world.module.bases
    odd = {**world.module.bases, first: torch.eye(7)[:, :2]}
    report, _ = patched(replace(inputs, safety=replace(world.module, bases=odd)), tmp_path / "out")
    assert row(report, first).reason == (
        f"the safety module's V_s has 7 rows here, not {row(report, first).shape[0]}"
    )


@pytest.mark.parametrize(
    "select", [Selection("count", 2), Selection("fraction", 0.5), Selection("threshold", 0.9)]
)
def test_the_smallest_cosines_are_selected(
    world: SaloraWorld, tmp_path: Path, select: Selection
) -> None:
    report = score(given(world, select), tmp_path, threads=1, on_module=lambda _: None)
    chosen = [layer.cosine for layer in report.layers if layer.decision == "projected"]
    kept = [layer.cosine for layer in report.layers if layer.decision == "kept"]
    assert all(
        one is not None and other is not None and one <= other for one in chosen for other in kept
    )
    assert report.verdict == "scored"


def test_the_report_names_the_safety_module_and_no_base_model(
    world: SaloraWorld, tmp_path: Path
) -> None:
    report, _ = patched(given(world, EVERY), tmp_path / "out")
    assert report.base_model is None
    assert report.method.safety_module == world.safety.id
    assert report.method.projector is None
    assert any("ours, not the paper's" in warning for warning in report.warnings)


def test_a_full_weight_is_projected_by_its_own_basis_or_skipped(tmp_path: Path) -> None:
    world = make_salora_world(tmp_path)
    torch.manual_seed(6)
    save_adapter(
        world.model(), tmp_path / "adapter", "llama",
        target_modules=["q_proj"], modules_to_save=["v_proj", "up_proj"],
    )  # fmt: skip
    report, after = patched(given(world, EVERY, full_weights="project"), tmp_path / "out")
    name = "model.layers.0.self_attn.v_proj"
    v = world.module.bases[name].double()
    chat = world.model().get_submodule(name).weight.detach().double()
    key = next(key for key in after if key.endswith("0.self_attn.v_proj.weight"))
    moved = after[key].double() - chat
    assert torch.linalg.norm(v.T @ moved) < 1e-5 * torch.linalg.norm(moved)
    skipped = [layer.reason for layer in report.layers if layer.kind == "up_proj"]
    assert skipped == [NO_BASIS, NO_BASIS]


def test_it_goes_in_one_batch_with_another_adapter(world: SaloraWorld, tmp_path: Path) -> None:
    inputs = [given(world, EVERY), given(world, Selection("count", 1))]
    runs = []
    for i, one in enumerate(inputs):
        (tmp_path / str(i)).mkdir()
        runs.append(Run(one, tmp_path / str(i), "patch", lambda _: None))
    examine(runs, threads=1)
    assert [run.result().summary.projected for run in runs] == [len(world.module.bases), 1]
