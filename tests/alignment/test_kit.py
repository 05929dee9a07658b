"""Kits and safety modules from files that somebody has changed: none of them is used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from app.alignment.kit import KIT_CONFIG, KIT_TENSORS, Kit
from app.alignment.safety_module import MADE_OF, SAFETY_MODULE_FILE, SafetyModule
from app.alignment.salora import KitDoesNotFit, attach
from tests.workers.salora_world import SaloraWorld, make_salora_world

Change = Callable[[Tensor], Tensor | None]

NO_PROJECTION: dict[str, Change] = {
    "zero": torch.zeros_like,
    "half as long": lambda v: v / 2,
    "NaN": lambda v: v * torch.nan,
    "too large": lambda v: v * 1e30,
    "of another dtype": Tensor.half,
    "of no columns": lambda v: v[:, :0],
    "of one axis": lambda v: v[:, 0],
    "the same direction twice": lambda v: torch.cat([v, v], 1),
}
CHANGED: dict[str, tuple[str, Change]] = {
    **{f"V {name}": ("V", change) for name, change in NO_PROJECTION.items()},
    "probe gone": ("probe", lambda _: None),
    "probe NaN": ("probe", lambda p: p * torch.nan),
    "A0 gone": ("A0", lambda _: None),
    "A0 infinite": ("A0", lambda a: a / 0),
    "A0 of another rank": ("A0", lambda a: torch.cat([a, a])),
    "A0 of one axis": ("A0", lambda a: a[:, 0]),
    "B0 gone": ("B0", lambda _: None),
    "B0 of one row": ("B0", lambda b: b[:1]),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SaloraWorld:
    return make_salora_world(tmp_path_factory.mktemp("world"))


def changed(tensors: dict[str, Tensor], part: str, change: Change) -> dict[str, Tensor]:
    found = {n: change(t) if n.endswith(f".{part}") else t for n, t in tensors.items()}
    return {name: tensor.contiguous() for name, tensor in found.items() if tensor is not None}


def copied(world: SaloraWorld, folder: Path, **changes: Any) -> Path:
    """The kit's two files, its configuration with these changes."""
    known = json.loads((world.kit_folder / KIT_CONFIG).read_bytes())
    (folder / KIT_CONFIG).write_text(json.dumps({**known, **changes}))
    (folder / KIT_TENSORS).write_bytes((world.kit_folder / KIT_TENSORS).read_bytes())
    return folder


@pytest.mark.parametrize("what", CHANGED)
def test_a_kit_whose_numbers_were_changed_is_refused(
    world: SaloraWorld, tmp_path: Path, what: str
) -> None:
    tensors = changed(load_file(world.kit_folder / KIT_TENSORS), *CHANGED[what])
    save_file(tensors, copied(world, tmp_path) / KIT_TENSORS)
    with pytest.raises(ValueError, match="is not a kit's"):
        Kit.load(tmp_path)


@pytest.mark.parametrize("raw", [b"", b"{}", (2**40).to_bytes(8, "little") + b"{}"])
def test_a_kit_whose_tensors_are_no_safetensors_is_refused(
    world: SaloraWorld, tmp_path: Path, raw: bytes
) -> None:
    (copied(world, tmp_path) / KIT_TENSORS).write_bytes(raw)
    with pytest.raises(ValueError, match="is not a kit's"):
        Kit.load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "0" * 64},
        {"id": None},
        {"made_of": {}},
        {"made_of": {"chat_digest": "another"}},
        {"chat_model": "chat"},
        {"scaling": "1"},
        {"scaling": float("nan")},
        {"scaling": 0},
        {"scaling": 10**400},
        {"use_rslora": "no"},
        {"ranks": [4]},
        {"ranks": {"model.layers.0.mlp.down_proj": 4.0}},
    ],
)
def test_a_kit_whose_configuration_was_changed_is_refused(
    world: SaloraWorld, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="is not a kit of version"):
        Kit.load(copied(world, tmp_path, **changes))


@pytest.mark.parametrize("raw", [b"[1]", b"\xff\xfe{", b"[" * 100_000])
def test_a_configuration_that_is_no_object_is_refused(
    world: SaloraWorld, tmp_path: Path, raw: bytes
) -> None:
    (copied(world, tmp_path) / KIT_CONFIG).write_bytes(raw)
    with pytest.raises(ValueError, match="is not a kit of version"):
        Kit.load(tmp_path)


def test_a_module_that_the_configuration_does_not_name_is_refused(
    world: SaloraWorld, tmp_path: Path
) -> None:
    tensors = load_file(world.kit_folder / KIT_TENSORS)
    save_file({**tensors, "extra.V": torch.eye(4)}, copied(world, tmp_path) / KIT_TENSORS)
    with pytest.raises(ValueError, match="of other modules"):
        Kit.load(tmp_path)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("probe", lambda p: p * 0 + 1e30, "weight is not the one"),
        ("A0", lambda a: a[:, :-1], "columns of the kit"),
    ],
)
def test_a_kit_of_another_models_numbers_is_not_attached(
    world: SaloraWorld, tmp_path: Path, part: str, change: Change, said: str
) -> None:
    tensors = changed(load_file(world.kit_folder / KIT_TENSORS), part, change)
    save_file(tensors, copied(world, tmp_path) / KIT_TENSORS)
    model = PeftModel.from_pretrained(world.model(), world.kit_folder, is_trainable=True)
    with pytest.raises(KitDoesNotFit, match=said):
        attach(model, tmp_path)


def test_a_loaded_kit_does_not_change_with_its_file(world: SaloraWorld, tmp_path: Path) -> None:
    kit = Kit.load(copied(world, tmp_path))
    size = (tmp_path / KIT_TENSORS).stat().st_size
    with (tmp_path / KIT_TENSORS).open("r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size // 2))
    for name, module in Kit.load(world.kit_folder).modules.items():
        assert torch.equal(kit.modules[name].safety, module.safety)


# --------------------------------------------------------------------------------- safety modules
def rewritten(world: SaloraWorld, folder: Path, change: Change, **metadata: str) -> Path:
    path = world.safety_folder / SAFETY_MODULE_FILE
    with safe_open(path, framework="pt") as file:
        known = file.metadata()
    save_file(changed(load_file(path), "V", change), folder / "one", {**known, **metadata})
    return folder / "one"


@pytest.mark.parametrize("what", NO_PROJECTION)
def test_a_safety_module_that_would_hold_nothing_is_refused(
    world: SaloraWorld, tmp_path: Path, what: str
) -> None:
    with pytest.raises(ValueError, match="is not a safety module"):
        SafetyModule.load(rewritten(world, tmp_path, NO_PROJECTION[what]))


@pytest.mark.parametrize("made_of", ["", "[]", "{}", '{"chat_digest": 1}', "[" * 100_000])
def test_a_safety_module_that_does_not_say_of_which_model_is_refused(
    world: SaloraWorld, tmp_path: Path, made_of: str
) -> None:
    with pytest.raises(ValueError, match="is not a safety module"):
        SafetyModule.load(rewritten(world, tmp_path, Tensor.clone, **{MADE_OF: made_of}))
