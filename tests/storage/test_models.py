"""Models in a folder; what makes a checkpoint is tested with intake."""

import json
import struct
from pathlib import Path

import pytest

from app.domain.errors import CheckpointRefused, InvalidField, UnknownModel
from app.storage.models import FolderModels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"model.norm.weight": tensor}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(8)
    (folder / "model.safetensors").write_bytes(content)
    return tmp_path


def test_a_model_is_found_by_its_id(root: Path) -> None:
    checkpoint = FolderModels(root).checkpoint("org/name", field="base_model")
    assert checkpoint.model_type == "llama"
    assert set(checkpoint.tensors) == {"model.norm.weight"}


def test_an_unknown_model_is_named_with_its_field(root: Path) -> None:
    with pytest.raises(UnknownModel, match="chat_model: no model org/other"):
        FolderModels(root).checkpoint("org/other", field="chat_model")


@pytest.mark.parametrize("model_id", ["../name", "/etc", "org/name/../name", "", "org\x00name"])
def test_a_path_is_no_model_id(root: Path, model_id: str) -> None:
    with pytest.raises(InvalidField, match="base_model"):
        FolderModels(root).checkpoint(model_id, field="base_model")


def test_a_folder_without_a_checkpoint_is_refused(root: Path) -> None:
    (root / "org" / "empty").mkdir()
    with pytest.raises(CheckpointRefused, match="base_model"):
        FolderModels(root).checkpoint("org/empty", field="base_model")
