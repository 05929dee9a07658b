"""A weight's rows as they are read from a safetensors file, window by window."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from app.domain.checkpoint import Checkpoint
from app.domain.errors import ArtifactCorrupt
from app.intake.checkpoint import read_checkpoint
from workers import checkpoints
from workers.checkpoints import FileWeight, OpenCheckpoint

ROWS, COLUMNS = 1000, 24
MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "WINDOW_BYTES", 1 << 13)  # 170 rows of bfloat16


def saved(folder: Path, weight: Tensor) -> Checkpoint:
    save_file({"other.weight": torch.ones(3), "m.weight": weight}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return read_checkpoint(folder, field="chat_model", model="chat")


@contextmanager
def opened(folder: Path, weight: Tensor) -> Iterator[FileWeight]:
    models = OpenCheckpoint(saved(folder, weight))
    try:
        yield models.weight("m")
    finally:
        models.close()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("block", [1, 47, 170, 171, ROWS])
def test_blocks_of_rows_are_the_weight_whatever_windows_they_cross(
    tmp_path: Path, block: int, dtype: torch.dtype
) -> None:
    weight = torch.randn(ROWS, COLUMNS).to(dtype)
    with opened(tmp_path, weight) as stored:
        blocks = [stored.rows(at, min(ROWS, at + block)).clone() for at in range(0, ROWS, block)]
    assert torch.equal(torch.cat(blocks), weight)


def test_rows_can_be_read_again_in_any_order(tmp_path: Path) -> None:
    weight = torch.randn(ROWS, COLUMNS).bfloat16()
    with opened(tmp_path, weight) as stored:
        for begin, end in ((900, 1000), (0, 10), (5, 700), (699, 701), (1000, 1000), (3, 3)):
            assert torch.equal(stored.rows(begin, end), weight[begin:end])


def test_rows_stay_readable_while_later_ones_are_read(tmp_path: Path) -> None:
    weight = torch.randn(ROWS, COLUMNS).bfloat16()
    with opened(tmp_path, weight) as stored:
        first, last = stored.rows(0, 100), stored.rows(900, 1000)
        assert torch.equal(first, weight[:100])
        assert torch.equal(last, weight[900:])


@pytest.mark.skipif(not MAPS.exists(), reason="this system does not list what is mapped")
def test_what_was_read_does_not_stay_mapped(tmp_path: Path) -> None:
    with opened(tmp_path, torch.randn(ROWS, COLUMNS)) as stored:
        for at in range(0, ROWS, 10):
            stored.rows(at, at + 10)
        mapped = [line for line in MAPS.read_text().splitlines() if str(tmp_path) in line]
    begin, end = (int(part, 16) for part in mapped[0].split()[0].split("-"))
    assert len(mapped) == 1
    assert end - begin < ROWS * COLUMNS * 4 / 4


def test_a_weight_without_columns_has_rows_all_the_same(tmp_path: Path) -> None:
    with opened(tmp_path, torch.empty(4, 0)) as stored:
        assert stored.rows(1, 3).shape == (2, 0)


def test_a_file_cut_short_behind_its_header_is_named_as_such(tmp_path: Path) -> None:
    with opened(tmp_path, torch.randn(ROWS, COLUMNS)) as stored:
        assert stored.rows(0, 10).shape == (10, COLUMNS)
        file = tmp_path / "model.safetensors"
        with file.open("r+b") as whole:
            whole.truncate(file.stat().st_size // 2)
        with pytest.raises(ArtifactCorrupt, match="ends before its header says"):
            stored.rows(ROWS - 10, ROWS)
