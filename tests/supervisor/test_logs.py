"""Reading what children wrote."""

import os

from app.supervisor import logs
from app.supervisor.logs import Log


def write(log: Log, text: bytes) -> None:
    descriptor = log.open_for_child("child")
    os.write(descriptor, text)
    os.close(descriptor)


def test_the_tail_is_the_end_of_the_last_start_only(tmp_path):
    log = Log(tmp_path / "logs" / "child.log")
    write(log, b"from the first start\n")
    write(log, b"\n".join(b"line %d" % number for number in range(100)))
    lines = log.tail().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("line 80", "line 99", 20)


def test_control_characters_never_reach_the_terminal(tmp_path):
    log = Log(tmp_path / "child.log")
    write(log, b"name: \x1b[2Jevil\x07 \xff\n")
    assert "\x1b" not in log.tail()
    assert log.new_lines() == ["name: \ufffd[2Jevil\ufffd \ufffd"]


def test_only_whole_lines_are_shown_and_each_once(tmp_path):
    log = Log(tmp_path / "child.log")
    descriptor = log.open_for_child("child")
    os.write(descriptor, b"one\ntw")
    assert log.new_lines() == ["one"]
    os.write(descriptor, b"o\n")
    assert log.new_lines() == ["two"]
    assert log.new_lines() == []
    os.close(descriptor)


def test_a_large_log_is_put_aside_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_ROTATE_ABOVE_BYTES", 10)
    log = Log(tmp_path / "child.log")
    write(log, b"a long line\n")
    write(log, b"new\n")
    assert b"a long line" in (tmp_path / "child.log.1").read_bytes()
    assert b"a long line" not in log.path.read_bytes()


def test_a_log_is_for_its_owner_only(tmp_path):
    log = Log(tmp_path / "child.log")
    write(log, b"x\n")
    assert log.path.stat().st_mode & 0o777 == 0o600
