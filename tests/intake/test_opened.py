from pathlib import Path

import pytest

from app.domain.errors import InvalidField, PickleRefused, UnsafeArchive
from app.intake.opened import open_adapter
from tests.intake.files import GOOD_FILES, GOOD_WEIGHTS, Q_PROJ, adapter, tarred, zipped


def test_a_folder_is_opened_where_it_lies(tmp_path: Path) -> None:
    with open_adapter(adapter(tmp_path / "a")) as opened:
        assert opened.folder == tmp_path / "a"
        assert opened.manifest.modules[0].name == Q_PROJ
    assert (tmp_path / "a").is_dir()


@pytest.mark.parametrize("raw", [zipped(GOOD_FILES), tarred(GOOD_FILES, "w:gz")])
def test_an_archive_is_unpacked_and_removed_afterwards(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(raw)
    with open_adapter(tmp_path / "a.zip") as opened:
        assert {path.name for path in opened.folder.iterdir()} == set(GOOD_FILES)
    assert not opened.folder.exists()


def test_neither_nor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidField, match="nothing"), open_adapter(tmp_path / "nothing"):
        pass
    (tmp_path / "w.safetensors").write_bytes(GOOD_WEIGHTS)
    with pytest.raises(UnsafeArchive), open_adapter(tmp_path / "w.safetensors"):
        pass
    (tmp_path / "w.bin").write_bytes(b"\x80\x04abc")
    with pytest.raises(PickleRefused, match=r"w\.bin"), open_adapter(tmp_path / "w.bin"):
        pass
