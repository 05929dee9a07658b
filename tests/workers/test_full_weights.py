"""Whole parameters that bypass LoRA: kept, dropped, or projected by what they change."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from app.domain.adapter import (
    WEIGHTS_FILE,
    FullWeight,
)
from app.domain.errors import (
    NonFiniteTensor,
)
from app.domain.method import Method, Selection
from app.intake.manifest import read_manifest
from app.jobs.decide import what_if
from tests.factory import World, make_world
from tests.workers.breadth import (
    FULL_WEIGHTS,
    PEFTS_WARNINGS,
    Q_V,
    Row,
)
from tests.workers.breadth_models import (
    COSINE_TOLERANCE,
    METHOD,
    WEIGHT_TOLERANCE,
    apply_full_weights,
    close,
    dense,
    expected,
    load,
    logits,
    patched,
    projector_of,
    set_by_hand,
    untie,
)
from workers import delta_projection, deltas, patched_weights

pytestmark = list(PEFTS_WARNINGS)

EVERYTHING = Selection("all", None)
PROJECTED = {
    "half, approximate": Method(select=Selection("fraction", 0.5), full_weights="project"),
    "approximate": Method(select=EVERYTHING, full_weights="project"),
    "subspace, norm preserved": Method(
        "subspace", 0.6, select=EVERYTHING, rescale="preserve_norm", full_weights="project"
    ),
    "complement": Method("complement", rank=3, select=EVERYTHING, full_weights="project"),
    "exact": Method("exact", select=EVERYTHING, full_weights="project"),
    "scale": Method(name="scale", factor=0.25, select=EVERYTHING, full_weights="project"),
    "prune": Method(name="prune", select=EVERYTHING, full_weights="project"),
}


# ------------------------------------------------------------------------------------------ helpers
def trained(world: World) -> World:
    """As after training: PEFT has saved some full weights as the chat model has them."""
    generator = torch.Generator().manual_seed(3)
    tensors = load_file(world.adapter / WEIGHTS_FILE)
    for weight in read_manifest(world.adapter).full_weights:
        noise = torch.randn(weight.entry.shape, generator=generator)
        tensors[weight.entry.name] = (tensors[weight.entry.name] + 0.05 * noise).contiguous()
    save_file(tensors, world.adapter / WEIGHTS_FILE, {"format": "pt"})
    return world


def has_projector(weight: FullWeight) -> bool:
    """What is 2-D or a bias has one; a norm has none, nor single rows of a head."""
    is_norm = "norm" in weight.name
    return not is_norm and not (weight.tokens and "lm_head" in weight.name)


def columns(tensor: Tensor, module: nn.Module) -> Tensor:
    """A weight or bias as `(d_out, n)` float64."""
    if tensor.ndim == 1:
        return tensor.double()[:, None]
    return tensor.double().T if isinstance(module, Conv1D | nn.Embedding) else tensor.double()


@dataclass
class Changed:
    """What one full weight changes of the chat model's, before and after, and the dense `C`."""

    c: Tensor
    before: Tensor
    after: Tensor

    @classmethod
    def of(cls, weight: FullWeight, world: World, out: Path, method: Method) -> "Changed":
        chat, base = load(world, world.chat), load(world, world.base)
        module = chat.get_submodule(weight.name.rpartition(".")[0])
        name = weight.name.rpartition(".")[0]
        c = projector_of(dense(chat, name), dense(base, name), method)
        old = chat.get_parameter(weight.name).detach()
        old = old[list(weight.tokens)] if weight.tokens else old
        before, after = (
            columns(load_file(folder / WEIGHTS_FILE)[weight.entry.name], module)
            - columns(old, module)
            for folder in (world.adapter, out)
        )
        return cls(c, before, after)

    @property
    def cosine(self) -> float:
        projected = self.c @ self.before
        norms = torch.linalg.norm(self.before) * torch.linalg.norm(projected)
        return float((self.before * projected).sum() / norms) if norms else 0.0

    def wanted(self, method: Method) -> Tensor:
        if method.name != "safe_lora":
            return self.before * (method.factor or 0.0)
        projected = self.c @ self.before
        if method.rescale == "none":
            return projected
        return projected * torch.linalg.norm(self.before) / torch.linalg.norm(projected)


# -------------------------------------------------------------------------------------------- tests
@pytest.mark.parametrize("method", PROJECTED.values(), ids=PROJECTED)
@pytest.mark.parametrize("row", FULL_WEIGHTS, ids=str)
def test_full_weights_that_are_projected_agree_with_the_formulas(
    row: Row, method: Method, tmp_path: Path
) -> None:
    world, out = trained(row.world(tmp_path)), tmp_path / "out"
    report = patched(world, out, method)
    layers = {layer.module: layer for layer in report.layers if layer.rank is None}
    before, after = (load_file(folder / WEIGHTS_FILE) for folder in (world.adapter, out))
    for weight in read_manifest(world.adapter).full_weights:
        if not has_projector(weight):
            assert weight.name not in layers
            assert torch.equal(before[weight.entry.name], after[weight.entry.name])
            continue
        layer, found = layers[weight.name], Changed.of(weight, world, out, method)
        assert layer.shape == tuple(found.before.shape)
        assert layer.cosine == pytest.approx(found.cosine, abs=COSINE_TOLERANCE)
        assert layer.update_norm == pytest.approx(float(torch.linalg.norm(found.before)), rel=1e-6)
        wanted = found.before if layer.decision == "kept" else found.wanted(method)
        assert torch.allclose(found.after, wanted, atol=WEIGHT_TOLERANCE)
        if layer.decision == "kept":
            assert torch.equal(before[weight.entry.name], after[weight.entry.name])
    if method.name == "safe_lora" and method.rescale == "none":
        expected(world, report, out, method)  # what became of the LoRA modules beside them


@pytest.mark.parametrize("row", FULL_WEIGHTS, ids=str)
def test_what_has_no_projector_is_named_and_calls_for_a_review(row: Row, tmp_path: Path) -> None:
    world = trained(row.world(tmp_path))
    report = patched(world, tmp_path / "out", PROJECTED["approximate"])
    left = [w.name for w in read_manifest(world.adapter).full_weights if not has_projector(w)]
    assert [(part.name, part.decision) for part in report.unscreened] == [
        (name, "kept") for name in left
    ]
    assert report.verdict == ("review" if left else "patched")


@pytest.mark.parametrize("row", FULL_WEIGHTS, ids=str)
def test_peft_loads_projected_full_weights(row: Row, tmp_path: Path) -> None:
    world, out, method = trained(row.world(tmp_path)), tmp_path / "out", PROJECTED["approximate"]
    report = patched(world, out, method)
    loaded = PeftModel.from_pretrained(untie(load(world, world.chat)), str(out))
    chat = apply_full_weights(untie(load(world, world.chat)), out)
    by_hand = set_by_hand(chat, expected(world, report, out, method).weights)
    assert close(logits(loaded), logits(by_hand))


def test_full_weights_that_are_the_chat_models_own_are_skipped_without_harm(
    tmp_path: Path,
) -> None:
    world = make_world(tmp_path, **Q_V, modules_to_save=["lm_head"])
    tensors = load_file(world.adapter / WEIGHTS_FILE)
    head = load(world, world.chat).lm_head.weight.detach()
    tensors["base_model.model.lm_head.weight"] = head.clone()
    save_file(tensors, world.adapter / WEIGHTS_FILE, {"format": "pt"})
    report = patched(world, tmp_path / "out", PROJECTED["approximate"])
    assert report.layers[-1].module == "lm_head.weight"
    assert (report.layers[-1].decision, report.layers[-1].update_norm) == ("skipped", 0.0)
    assert report.verdict == "patched"


def test_nan_in_a_projected_full_weight_names_its_tensor(tmp_path: Path) -> None:
    world = make_world(tmp_path, **Q_V, modules_to_save=["lm_head"])
    tensors = load_file(world.adapter / WEIGHTS_FILE)
    tensors["base_model.model.lm_head.weight"][3, 2] = torch.nan
    save_file(tensors, world.adapter / WEIGHTS_FILE, {"format": "pt"})
    with pytest.raises(NonFiniteTensor, match=r"base_model\.model\.lm_head\.weight of the adapter"):
        patched(world, tmp_path / "out", PROJECTED["approximate"])


def test_a_full_weight_with_tokens_of_its_own_is_left_to_a_person(tmp_path: Path) -> None:
    world = make_world(tmp_path, **Q_V, modules_to_save=["lm_head"])
    tensors = load_file(world.adapter / WEIGHTS_FILE)
    key = "base_model.model.lm_head.weight"
    tensors[key] = torch.cat([tensors[key], tensors[key][:2]])
    save_file(tensors, world.adapter / WEIGHTS_FILE, {"format": "pt"})
    report = patched(world, tmp_path / "out", PROJECTED["approximate"])
    (part,) = report.unscreened
    assert (part.name, part.decision, report.verdict) == ("lm_head.weight", "kept", "review")
    assert "another shape" in part.reason


@pytest.mark.parametrize("size", [7, 64, 1000])
def test_a_delta_in_pieces_gives_what_it_gives_whole(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = trained(make_world(tmp_path, **Q_V, modules_to_save=["lm_head", "embed_tokens"]))
    whole = patched(world, tmp_path / "whole", PROJECTED["approximate"])
    monkeypatch.setattr(deltas, "CHUNK_ELEMENTS", size)
    monkeypatch.setattr(deltas, "BLOCK_ELEMENTS", size)
    monkeypatch.setattr(delta_projection, "DENSE_C", 0)
    monkeypatch.setattr(patched_weights, "COPIED_BYTES", 64)
    pieces = patched(world, tmp_path / "pieces", PROJECTED["approximate"])
    one, other = (load_file(tmp_path / f / WEIGHTS_FILE) for f in ("whole", "pieces"))
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], atol=WEIGHT_TOLERANCE), name
    assert [layer.cosine for layer in pieces.layers] == pytest.approx(
        [layer.cosine for layer in whole.layers], abs=COSINE_TOLERANCE
    )


def test_a_stored_report_with_full_weights_is_decided_anew(tmp_path: Path) -> None:
    world = trained(make_world(tmp_path, **Q_V, modules_to_save=["lm_head"]))
    report = patched(world, tmp_path / "out", PROJECTED["approximate"]).as_json()
    anew = what_if(report, Selection("count", 0))
    assert {layer.decision for layer in anew.layers} == {"kept"}
    assert anew.layers[-1].rank is None


@pytest.mark.parametrize("row", FULL_WEIGHTS, ids=str)
def test_full_weights_that_are_dropped_leave_the_chat_models_own(row: Row, tmp_path: Path) -> None:
    world, out = row.world(tmp_path), tmp_path / "out"
    kept = read_manifest(world.adapter).full_weights
    assert kept
    method = replace(METHOD, full_weights="drop")
    report = patched(world, out, method)
    assert report.verdict == "patched"
    assert [(part.name, part.decision) for part in report.unscreened] == [
        (weight.name, "dropped") for weight in kept
    ]
    assert any("were dropped from the adapter" in warning for warning in report.warnings)
    assert read_manifest(out).full_weights == ()
    wanted = expected(world, report, out, method)
    loaded = PeftModel.from_pretrained(untie(load(world, world.chat)), str(out))
    by_hand = set_by_hand(untie(load(world, world.chat)), wanted.weights)
    assert close(logits(loaded), logits(by_hand))


@pytest.mark.parametrize("row", FULL_WEIGHTS, ids=str)
def test_full_weights_that_are_kept_are_named_and_never_patched(row: Row, tmp_path: Path) -> None:
    world, out = row.world(tmp_path), tmp_path / "out"
    report = patched(world, out)
    names = [weight.name for weight in read_manifest(world.adapter).full_weights]
    assert [(part.name, part.decision) for part in report.unscreened] == [
        (name, "kept") for name in names
    ]
    assert any(names[0] in w and "not screened" in w for w in report.warnings)
    assert report.verdict == "review"
    before, after = (load_file(f / WEIGHTS_FILE) for f in (world.adapter, out))
    assert before.keys() == after.keys()
    for weight in read_manifest(world.adapter).full_weights:
        assert torch.equal(before[weight.entry.name], after[weight.entry.name])
