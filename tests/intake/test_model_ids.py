from pathlib import Path

import pytest

from app.domain.errors import InvalidField, UnknownModel
from app.intake.model_ids import find_model


@pytest.mark.parametrize("model", ["gpt2", "meta-llama/Llama-3.1-8B", "a/b_c.d", "0/1"])
def test_a_folder_under_the_root_is_found(model: str, tmp_path: Path) -> None:
    (tmp_path / model).mkdir(parents=True)
    assert find_model(model, tmp_path, field="base_model") == tmp_path / model


@pytest.mark.parametrize(
    "model",
    [
        "", "/", "/etc", "..", "../x", "a/..", "a/../b", "a/b/c", "a//b", "a/", "/a", ".a", "a/.b",
        "-a", "a\\b", "a b", "a\n", "a\0", "~", "C:x", "a" * 97, "b/" + "a" * 97, "a--b", "a..b",
        "a-", "a.", "a./b", "x.git", "h\u00e9", "%2e%2e",
    ],
)  # fmt: skip
def test_what_is_no_model_id_is_refused_without_a_path(model: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidField) as caught:
        find_model(model, tmp_path, field="chat_model")
    assert caught.value.facts["field"] == "chat_model"
    assert str(tmp_path) not in str(caught.value)


def test_an_id_without_a_folder_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for model in ("org/none", "none", "file"):
        with pytest.raises(UnknownModel) as caught:
            find_model(model, tmp_path, field="base_model")
        assert caught.value.facts == {"field": "base_model", "model": model}
