"""Which files of a repository are fetched as small ones."""

import pytest

from app.jobs.hub_ports import HubFile
from app.storage.hub.remote import SMALL_BYTES, is_small


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tokenizer.json", True),
        ("merges.txt", True),
        ("tokenizer.model", True),
        ("chat_template.jinja", True),
        ("additional_chat_templates/tool_use.jinja", True),
        ("model.safetensors.index.json", False),
        ("pytorch_model.bin.index.json", False),
        ("modeling_custom.py", False),
        ("pytorch_model.bin", False),
        ("onnx/config.json", False),
        ("../config.json", False),
        ("/config.json", False),
        ("additional_chat_templates/../../config.json", False),
        ("additional_chat_templates/deep/er.jinja", False),
    ],
)
def test_only_configurations_and_tokenizers_in_their_places_are_small_files(
    name: str, expected: bool
) -> None:
    assert is_small(HubFile(name, 10)) is expected


def test_a_small_file_is_small() -> None:
    assert not is_small(HubFile("tokenizer.json", SMALL_BYTES + 1))
