import json
from dataclasses import replace
from pathlib import Path

import pytest

from app.domain.adapter import StoredModule
from app.domain.checkpoint import Checkpoint
from app.domain.errors import (
    AdapterShapesDiffer,
    CheckpointRefused,
    ModelShapesDiffer,
    ModulesNotInModel,
)
from app.intake.checkpoint import read_checkpoint
from app.intake.preflight import check_fit
from tests.intake.files import checkpoint

NAME = "model.layers.0.q_proj"


def model(folder: Path, shape: list[int], name: str = NAME, **changes: str) -> Checkpoint:
    """A checkpoint with one weight."""
    checkpoint(folder, [(f"{name}.weight", shape)], **changes)
    return read_checkpoint(folder, field="base_model", model="m")


def adapted(name: str = NAME, d_out: int = 4, d_in: int = 6) -> StoredModule:
    return StoredModule(name=name, rank=2, alpha=4.0, d_out=d_out, d_in=d_in, dtype="F32")


def check(base: Checkpoint, chat: Checkpoint, *modules: StoredModule) -> None:
    check_fit(modules or (adapted(),), base, chat, "org/base", "org/chat")


def test_an_adapter_that_fits_passes(tmp_path: Path) -> None:
    check(model(tmp_path / "b", [4, 6]), model(tmp_path / "c", [4, 6], dtype="F32"))


def test_modules_that_a_model_lacks_are_listed_with_the_model(tmp_path: Path) -> None:
    fits, lacks = model(tmp_path / "b", [4, 6]), model(tmp_path / "c", [4, 6], "other")
    for base, chat, field, model_id in (
        (fits, lacks, "chat_model", "org/chat"),
        (lacks, fits, "base_model", "org/base"),
    ):
        with pytest.raises(ModulesNotInModel) as caught:
            check(base, chat)
        assert caught.value.facts == {"field": field, "model": model_id, "modules": [NAME]}


def test_models_of_two_shapes_are_refused_with_both_shapes(tmp_path: Path) -> None:
    with pytest.raises(ModelShapesDiffer) as caught:
        check(model(tmp_path / "b", [4, 6]), model(tmp_path / "c", [8, 6]))
    assert caught.value.facts["modules"] == [f"{NAME}: [4, 6] against [8, 6]"]


def test_an_adapter_of_another_shape_is_refused(tmp_path: Path) -> None:
    base, chat = model(tmp_path / "b", [4, 6]), model(tmp_path / "c", [4, 6])
    with pytest.raises(AdapterShapesDiffer) as caught:
        check(base, chat, adapted(d_out=6, d_in=4))
    assert caught.value.facts["modules"] == [f"{NAME}: [4, 6] against [6, 4]"]
    assert caught.value.facts["field"] == "base_model"


def test_a_conv1d_weight_is_stored_the_other_way_round(tmp_path: Path) -> None:
    name = "transformer.h.0.attn.c_attn"
    base = model(tmp_path / "b", [6, 4], name, model_type="gpt2")
    chat = model(tmp_path / "c", [6, 4], name, model_type="gpt2")
    check(base, chat, adapted(name))
    with pytest.raises(AdapterShapesDiffer):
        check(base, chat, adapted(name, d_out=6, d_in=4))


def test_models_of_two_kinds_are_refused(tmp_path: Path) -> None:
    base = model(tmp_path / "b", [4, 6])
    chat = model(tmp_path / "c", [4, 6], model_type="mistral")
    with pytest.raises(CheckpointRefused, match=r"mistral.*llama") as caught:
        check(base, chat)
    assert caught.value.facts["field"] == "chat_model"


@pytest.mark.parametrize("dtype", ["U8", "I8", "F8_E4M3"])
def test_a_quantised_weight_names_dtype_and_tensor(dtype: str, tmp_path: Path) -> None:
    base, chat = model(tmp_path / "b", [4, 6]), model(tmp_path / "c", [4, 6], dtype=dtype)
    with pytest.raises(CheckpointRefused, match=rf"{NAME}\.weight has dtype {dtype}") as caught:
        check(base, chat)
    assert caught.value.facts["file"] == "model.safetensors"


@pytest.mark.parametrize("method", ["gptq", "awq", None])
def test_a_packed_weight_names_the_method_dtype_and_tensor(
    method: str | None, tmp_path: Path
) -> None:
    base = model(tmp_path / "b", [4, 6])
    folder = checkpoint(tmp_path / "c", [(f"{NAME}.qweight", [4, 6])], dtype="I32")
    if method is None:  # a checkpoint of the model without its head
        checkpoint(folder, [(f"{NAME.removeprefix('model.')}.qweight", [4, 6])], dtype="I32")
    said = {"model_type": "llama", "quantization_config": {"quant_method": method, "bits": 4}}
    (folder / "config.json").write_text(json.dumps(said))
    chat = read_checkpoint(folder, field="chat_model", model="m")
    with pytest.raises(CheckpointRefused) as caught:
        check(base, chat)
    reason = str(caught.value.facts["reason"])
    assert f"{NAME.removeprefix('model.')}.qweight has dtype I32" in reason
    assert reason.startswith(f"it is quantised by {method or 'quantised'}")


def test_vocabularies_of_different_sizes_fit_where_rows_are_tokens(tmp_path: Path) -> None:
    head = replace(adapted("lm_head"), d_out=9)
    embedding = StoredModule("embed", 2, 4.0, 6, 9, "F32", "embedding")
    for module in (head, embedding):
        base, chat = (model(tmp_path / f"{i}", [i, 6], module.name) for i in (7, 8))
        check(base, chat, module)
        with pytest.raises(AdapterShapesDiffer) as caught:
            check(base, chat, replace(module, dora=True))
        assert caught.value.facts["field"] == "chat_model"
    base, chat = (model(tmp_path / f"w{i}", [4, i], "lm_head") for i in (6, 7))
    with pytest.raises(ModelShapesDiffer):
        check(base, chat, adapted("lm_head"))


def test_a_weight_with_other_than_two_axes_is_named(tmp_path: Path) -> None:
    base, chat = model(tmp_path / "b", [4, 6, 1]), model(tmp_path / "c", [4, 6, 1])
    with pytest.raises(CheckpointRefused, match=f"{NAME}.weight has shape"):
        check(base, chat)
