"""Which files of a commit count as looked at by nobody."""

import pytest

from app.domain.adapter import CONFIG_FILE, README_FILE, REPORT_FILE, WEIGHTS_FILE
from app.jobs.unread_files import MAX_NAME_CHARS, MAX_NAMED, unread_doubt, unread_of


@pytest.mark.parametrize(
    "name",
    [
        CONFIG_FILE, README_FILE, REPORT_FILE, WEIGHTS_FILE, ".gitattributes", "LICENSE", "NOTICE",
        "tokenizer.json", "tokenizer.model", "chat_template.jinja", "images/loss.PNG",
        "runs/Jan01/events.out.tfevents.17.host.1.0", "checkpoint-1/adapter_config.json",
    ],
)  # fmt: skip
def test_text_pictures_and_settings_are_harmless(name: str) -> None:
    assert unread_of([name]).count == 0


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint-1/adapter_model.safetensors", "adapter_model.bin", "model.safetensors",
        "handler.py", "optimizer.pt", "training_args.bin", "a.PKL", "x.gguf", "x.onnx", "x.zip",
        "weights", "a.txt.so", "Adapter_Model.safetensors", "x.ipynb", "sub/", ".", "\x00.pt",
    ],
)  # fmt: skip
def test_other_weights_pickles_code_and_what_nobody_knows_are_not(name: str) -> None:
    assert unread_of([name, README_FILE]).count == 1


def test_a_doubt_names_the_first_and_counts_them_all() -> None:
    names = [f"checkpoint-{number}/{'x' * 1000}\n.bin" for number in range(1000)]
    found = unread_of(names)
    assert (found.count, len(found.names)) == (1000, MAX_NAMED)
    (doubt,) = unread_doubt(found)
    assert doubt.startswith("1000 other files of the commit were not looked at (checkpoint-0/xxx")
    assert doubt.endswith(", ...)")
    assert len(doubt) < MAX_NAMED * (MAX_NAME_CHARS + 2) + 100
    assert list(unread_doubt(unread_of([README_FILE]))) == []
    assert "\\n" in next(unread_doubt(unread_of(["a\n.bin"])))
