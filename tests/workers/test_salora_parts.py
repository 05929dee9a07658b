"""The safety module and the kit of real models, against float64 written from the formulas."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from app.alignment.activations import weight_of
from app.alignment.kit import Kit
from app.alignment.moments import RANK_TOLERANCE
from app.alignment.safety_module import SafetyModule
from app.domain.dataset import Message, Row
from app.domain.salora import InitRecipe, SafetyModuleRecipe, kit_facts, part_id
from app.domain.salora_errors import KitOfAnotherModel, TargetsRefused
from app.intake.manifest import read_manifest
from tests.alignment.test_leading import angle
from tests.chat_models import (
    MARKED_TEMPLATE,
    letters,
    save_chat_model,
    save_with_a_letter_that_breaks,
)
from tests.workers.salora_world import (
    CPU,
    SAFETY_SET,
    SHORT,
    TASK_SET,
    SaloraWorld,
    make_salora_world,
    named,
    quiet,
    refusals,
    task,
)
from workers.encoding import encode_all
from workers.language_models import find_targets, load_tokenizer
from workers.safety_module import make_safety_module
from workers.salora_init import NO_TASK_DATA, InitInput, make_kit

ANGLE = 1e-3  # sine of the largest principal angle
GAP = 1e-4  # relative, of singular values: below, there is no subspace to agree on
FORMULA = 1e-4  # relative to ||B0 A0||_F: the model runs in float32, the reference in float64


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    return make_salora_world(tmp_path_factory.mktemp(request.param), request.param)


def outputs(world: SaloraWorld, data: list[Row]) -> Mapping[str, Tensor]:
    """`Y = X_h W^T` of every target in float64, one row at a time and without padding."""
    model = world.model().double()
    targets = find_targets(model, [m.name for m in world.safety.modules])
    encoded = encode_all(data, load_tokenizer(world.chat), SHORT)
    found: dict[str, list[Tensor]] = {name: [] for name in targets}
    for row in encoded.rows:
        kept = torch.tensor(row.is_response)
        handles = [
            module.register_forward_pre_hook(
                lambda m, args, name=name: found[name].append(
                    args[0][0][kept] @ weight_of(m).double().T  # noqa: B023 because it runs now
                )
            )
            for name, module in targets.items()
        ]
        with torch.no_grad():
            model(input_ids=torch.tensor([row.ids]))
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def right_vectors(y: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    _, values, right = torch.linalg.svd(y, full_matrices=False)
    return right[:rank].T, values


def has_gap(values: Tensor, rank: int) -> bool:
    after = values[rank] if rank < len(values) else values.new_zeros(())
    return bool((values[rank - 1] - after) / values[0] > GAP)


def test_v_s_spans_the_top_right_singular_vectors_of_the_response_outputs(
    world: SaloraWorld,
) -> None:
    compared = 0
    for name, y in outputs(world, refusals()).items():
        basis = world.module.bases[name]
        wanted, values = right_vectors(y, basis.shape[1])
        assert basis.shape == (y.shape[1], 6)
        if has_gap(values, 6):
            compared += 1
            assert angle(basis, wanted) < ANGLE
        row = next(r for r in world.safety.report.modules if r.module == name)
        energy = float(values[:6].square().sum() / values.square().sum())
        assert row.energy == pytest.approx(energy, rel=1e-4)
    assert compared >= len(world.safety.modules) - 1


def test_c_is_symmetric_and_idempotent(world: SaloraWorld) -> None:
    for v in world.module.bases.values():
        c = torch.eye(v.shape[0]).double() - v.double() @ v.double().T
        assert torch.allclose(c, c.T, atol=1e-12)
        assert torch.allclose(c @ c, c, atol=1e-6)  # because V_s is kept in float32


def test_a0_and_b0_are_the_truncated_svd_projected_on_the_task(world: SaloraWorld) -> None:
    kit, model = Kit.load(world.kit_folder), world.model()
    targets = find_targets(model, list(kit.modules))
    for name, y in outputs(world, task()).items():
        w = weight_of(targets[name]).double()
        u, s, zh = torch.linalg.svd(w, full_matrices=False)
        every = torch.linalg.svdvals(y)
        rank = min(8, int((every > RANK_TOLERANCE * every[0]).sum()))
        v_t, values = right_vectors(y, rank)
        if not has_gap(values, rank):
            continue
        wanted = v_t @ (v_t.T @ ((u[:, :4] * s[:4]) @ zh[:4]))
        found = kit.modules[name].start
        assert found is not None
        product = found.b.double() @ found.a.double()
        assert torch.linalg.norm(product - wanted) < FORMULA * torch.linalg.norm(wanted)
        assert torch.allclose(found.a.double() @ found.a.double().T, torch.diag(s[:4]), atol=1e-4)


def test_the_kit_is_an_adapter_that_the_gate_accepts(world: SaloraWorld, tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((world.kit_folder / name).read_bytes())
    manifest = read_manifest(tmp_path)
    assert [module.name for module in manifest.modules] == [m.name for m in world.kit.modules]
    assert {module.scaling for module in manifest.modules} == {1.0}
    assert {module.rank for module in manifest.modules} == {4}


def test_the_same_question_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (make_salora_world(tmp_path / name) for name in ("one", "two"))
    for folder in ("safety_folder", "kit_folder"):
        for path in sorted(getattr(one, folder).iterdir()):
            assert path.read_bytes() == (getattr(two, folder) / path.name).read_bytes(), path.name


def test_without_task_data_the_kit_says_that_the_projection_is_left_out(tmp_path: Path) -> None:
    world = make_salora_world(tmp_path, with_task=False)
    assert NO_TASK_DATA in world.kit.report.warnings
    assert all(row.task_rank is None for row in world.kit.report.modules)
    w = weight_of(world.model().get_submodule("model.layers.0.self_attn.q_proj")).double()
    u, s, zh = torch.linalg.svd(w)
    found = Kit.load(world.kit_folder).modules["model.layers.0.self_attn.q_proj"].start
    assert found is not None
    wanted = (u[:, :4] * s[:4]) @ zh[:4]
    assert torch.allclose(found.b.double() @ found.a.double(), wanted, atol=1e-5)


def test_a_rank_that_a_module_does_not_have_is_clamped_and_said(tmp_path: Path) -> None:
    chat = tmp_path / "chat"
    save_chat_model(chat)
    recipe = SafetyModuleRecipe(SAFETY_SET, ("k_proj", "q_proj"), rank=100, encoding=SHORT)
    (tmp_path / "out").mkdir()
    made = make_safety_module(named(chat), refusals(), recipe, tmp_path / "out", CPU, quiet)
    assert {module.rank for module in made.modules} <= {16, 32}
    said = " ".join(made.report.warnings)
    assert "have no 100 directions" in said
    assert "nothing that is trained there will have any effect" in said


def test_targets_that_match_nothing_are_refused_by_name(tmp_path: Path) -> None:
    save_chat_model(tmp_path / "chat")
    for targets, reason in (
        (("q_proj", "quary"), "quary: no module of the chat model has such a name"),
        (("proj",), "proj: no module"),
        (("mlp",), "LlamaMLP has no weight matrix"),
        (("embed_tokens",), "is not a linear module"),
        (("lm_head",), "the output head"),
    ):
        recipe = SafetyModuleRecipe(SAFETY_SET, targets, encoding=SHORT)
        with pytest.raises(TargetsRefused, match=reason):
            make_safety_module(named(tmp_path / "chat"), refusals(), recipe, tmp_path, CPU, quiet)


def test_a_safety_module_of_another_model_makes_no_kit(world: SaloraWorld, tmp_path: Path) -> None:
    save_chat_model(tmp_path / "other", world.architecture, seed=8)
    given = InitInput(named(tmp_path / "other"), world.module, None, InitRecipe(world.safety.id))
    with pytest.raises(KitOfAnotherModel, match="the safety module was made for"):
        make_kit(given, tmp_path, CPU, quiet)


def test_a_bfloat16_checkpoint_is_swept_in_its_own_dtype(tmp_path: Path) -> None:
    world = make_salora_world(tmp_path, dtype=torch.bfloat16)
    assert world.model("auto").dtype == torch.bfloat16
    for v in world.module.bases.values():
        assert torch.allclose(v.T @ v, torch.eye(v.shape[1]), atol=1e-5)


def test_a_zero_start_has_no_b0_and_an_adapter_of_zero(tmp_path: Path) -> None:
    save_chat_model(tmp_path / "chat")
    zero = InitRecipe("0" * 64, None, rank=4, initialisation="zero", encoding=SHORT)
    world = make_salora_world(tmp_path / "world", init=zero, with_task=False)
    kit = Kit.load(world.kit_folder)
    assert all(module.start is None for module in kit.modules.values())
    assert TASK_SET not in str(kit.config)
    assert {row.start_norm for row in world.kit.report.modules} == {0.0}


def test_another_chat_template_or_tokenizer_makes_another_safety_module(tmp_path: Path) -> None:
    save_chat_model(tmp_path / "chat")
    recipe = SafetyModuleRecipe(SAFETY_SET, ("q_proj",), rank=6, encoding=SHORT)

    def made() -> str:
        return make_safety_module(
            named(tmp_path / "chat"), refusals(), recipe, tmp_path, CPU, quiet
        ).id

    first = made()
    (tmp_path / "chat" / "README.md").write_text("about the model")
    assert made() == first
    letters(MARKED_TEMPLATE).save_pretrained(tmp_path / "chat")
    second = made()
    (tmp_path / "chat" / "additional_chat_templates").mkdir()
    (tmp_path / "chat" / "additional_chat_templates" / "rag.jinja").write_text("{{ messages }}")
    assert len({first, second, made()}) == 3


def test_a_kit_without_task_data_is_of_no_tokenizer(world: SaloraWorld) -> None:
    recipe = InitRecipe(world.safety.id)
    one, two = (part_id(kit_facts(recipe, "0" * 64, tokenizer)) for tokenizer in ("a", "b"))
    assert one == two
    asked = replace(recipe, dataset=TASK_SET)
    one, two = (part_id(kit_facts(asked, "0" * 64, tokenizer)) for tokenizer in ("a", "b"))
    assert one != two


@pytest.mark.parametrize(
    ("name", "basis"),
    [
        ("model.layers.0.self_attn.q_proj", torch.eye(33)[:, :4]),
        ("q_proj", torch.eye(32)[:, :4]),  # means modules, but is the name of none
    ],
)
def test_a_safety_module_of_other_outputs_makes_no_kit(
    tmp_path: Path, name: str, basis: Tensor
) -> None:
    world = make_salora_world(tmp_path)
    odd = SafetyModule(world.module.made_of, {**world.module.bases, name: basis})
    given = InitInput(world.chat, odd, None, InitRecipe(world.safety.id))
    with pytest.raises(TargetsRefused, match="has no V_s of the outputs of such a module"):
        make_kit(given, tmp_path, CPU, quiet)


def test_a_model_whose_outputs_are_no_numbers_makes_no_safety_module(tmp_path: Path) -> None:
    save_with_a_letter_that_breaks(save_chat_model(tmp_path), tmp_path)
    rows = [Row(1, (Message("user", "zoo"), Message("assistant", "zoo")))]
    recipe = SafetyModuleRecipe(SAFETY_SET, encoding=SHORT)
    with pytest.raises(TargetsRefused, match="its outputs hold NaN or infinity"):
        make_safety_module(named(tmp_path), rows, recipe, tmp_path, CPU, quiet)
