"""`adapter-safety backup` and `restore`, as they are typed; what they do is in tests/storage."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import program
from app.domain.adapter import FileEntry
from app.storage import migrate
from app.storage.records import SqlRecords
from tests.samples import a_dataset


def run(data: Path, *words: str) -> tuple[int, str]:
    environment = {"ADAPTER_SAFETY_DATA_DIR": str(data)}
    done = CliRunner().invoke(program(), list(words), env=environment)
    return done.exit_code, done.output


@pytest.fixture
def data(tmp_path: Path) -> Path:
    migrate.upgrade(f"sqlite:///{tmp_path}/data/records.sqlite3")
    return tmp_path / "data"


def test_a_backup_is_restored_elsewhere_and_nowhere_twice(data: Path, tmp_path: Path) -> None:
    saved, new = str(tmp_path / "saved"), tmp_path / "new"
    counted = f"the database at {migrate.head()}; 0 files, 0 bytes, 0 of them new\n"
    assert run(data, "backup", saved) == (0, f"saved in {saved}: {counted}")
    assert run(new, "restore", saved) == (0, f"restored to {new}: {counted}")
    code, said = run(new, "restore", saved)
    assert (code, "is there already" in said) == (2, True)


def test_what_the_service_has_lost_is_named_and_the_exit_code_says_so(
    data: Path, tmp_path: Path
) -> None:
    lost = FileEntry("5" * 64, 1)
    records = SqlRecords(f"sqlite:///{data}/records.sqlite3")
    records.add_dataset(a_dataset(id=lost.sha256, file=lost))
    records.close()
    code, said = run(data, "backup", str(tmp_path / "saved"))
    assert code == 3
    assert f"missing or damaged: {lost.sha256}" in said


def test_where_there_is_no_service_there_is_no_backup(tmp_path: Path) -> None:
    code, said = run(tmp_path / "none", "backup", str(tmp_path / "saved"))
    assert (code, "there is no database at" in said) == (2, True)
