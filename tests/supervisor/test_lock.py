"""One run per data folder."""

import subprocess
import sys

import pytest

from app.supervisor.errors import AlreadyRunning, SupervisorError
from app.supervisor.lock import hold


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path):
    with hold(tmp_path), pytest.raises(AlreadyRunning) as refusal, hold(tmp_path, patience_s=0):
        pass
    assert refusal.value.folder == tmp_path
    assert int(refusal.value.holder) > 0
    assert f"process {refusal.value.holder}" in str(refusal.value)


def test_a_folder_is_free_again_after_its_run(tmp_path):
    with hold(tmp_path / "new" / "folder"):
        pass
    with hold(tmp_path / "new" / "folder", patience_s=0):
        pass


def test_the_folder_stays_locked_while_a_child_with_the_descriptor_lives(tmp_path):
    read_until_closed = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]
    with hold(tmp_path) as descriptor:
        child = subprocess.Popen(read_until_closed, stdin=subprocess.PIPE, pass_fds=(descriptor,))
    with child, pytest.raises(AlreadyRunning), hold(tmp_path, patience_s=0):
        pass
    with hold(tmp_path, patience_s=0):
        pass


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SupervisorError, match=r"Cannot write to the data folder .*file/data"):
        hold(tmp_path / "file" / "data").__enter__()
