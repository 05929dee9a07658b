"""The log's form, in processes of its own: `configure` takes a whole process over."""

import json
import subprocess
import sys
import textwrap

import pytest

from app.config_observe import secrets_in
from app.observe.context import bind, bound, current, request_id, unbind_all
from app.observe.redaction import HIDDEN, password_of, redactor


def logged(code: str, form: str = "json", level: str = "info", *secrets: str) -> str:
    """What a process writes to stderr; to stdout it may write nothing."""
    given = f"logs.configure({form!r}, {level!r}, process='test', secrets={list(secrets)!r})"
    imports = "import logging\nfrom app.observe import logs\nfrom app.observe.context import bound"
    command = [sys.executable, "-c", f"{imports}\n{given}\n{textwrap.dedent(code)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    return done.stderr


def test_a_plain_call_becomes_one_object_with_what_is_bound() -> None:
    code = """
        with bound(job_id="j", module="m"):
            logging.getLogger("app.x").warning("%d of %d", 1, 2, extra={"route": "/r", "other": 1})
    """
    (line,) = map(json.loads, logged(code).splitlines())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "message": "1 of 2", "level": "warning", "logger": "app.x", "process": "test",
        "job_id": "j", "module": "m", "route": "/r",
    }  # fmt: skip


def test_an_exception_stays_in_its_line() -> None:
    code = """
        try:
            1 / 0
        except ZeroDivisionError:
            logging.getLogger("app").exception("failed")
    """
    (line,) = map(json.loads, logged(code).splitlines())
    assert "ZeroDivisionError" in line["exception"]


def test_a_trace_shows_no_variables_in_either_form() -> None:
    code = """
        def fails(held):
            raise ValueError("said")
        try:
            fails("a" "b" "c")
        except ValueError:
            logging.getLogger("app").exception("failed")
    """
    for form in ("json", "console"):
        text = logged(code, form)
        assert "ValueError: said" in text
        assert "abc" not in text


def test_what_ends_the_process_a_thread_or_warns_is_a_line_too() -> None:
    code = """
        import threading, warnings
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start(); thread.join()
        raise RuntimeError("the end")
    """
    lines = [json.loads(line) for line in logged(code).splitlines()]
    assert [line["logger"] for line in lines] == ["py.warnings", "process", "process"]
    assert ["the end" in str(line.get("exception")) for line in lines] == [False, False, True]


def test_debug_is_for_the_services_own_loggers() -> None:
    code = """
        for name in ("app.x", "workers.x", "library"):
            logging.getLogger(name).debug("said")
    """
    lines = [json.loads(line)["logger"] for line in logged(code, "json", "debug").splitlines()]
    assert lines == ["app.x", "workers.x"]
    assert logged(code) == ""


def test_a_strangers_text_begins_no_line_in_either_form() -> None:
    code = r"""
        text = "one\n2026-01-01 [critical] two\x1b[31m"
        with bound(module=text):
            logging.getLogger("app").warning("seen: %s", text)
    """
    for form in ("json", "console"):
        (line,) = logged(code, form).splitlines()
        assert "\x1b" not in line
        assert "two" in line


SECRETS = {
    "ask_" + "0123456789abcdef_" + "x" * 43: "an API key",
    "whsec_" + "QUJD" * 11: "a webhook's secret",
    "hf_" + "a" * 34: "a hub's token",
}


@pytest.mark.parametrize("secret", SECRETS, ids=SECRETS.values())
@pytest.mark.parametrize("form", ["json", "console"])
def test_what_has_the_form_of_a_secret_is_hidden_wherever_it_stands(secret: str, form: str) -> None:
    code = f"""
        secret = {secret!r}
        log = logging.getLogger("app")
        with bound(module=secret):
            log.warning("in a text %s", secret, extra={{"path": "/x/" + secret}})
        try:
            raise ValueError(secret)
        except ValueError:
            log.exception("in a trace")
    """
    text = logged(code, form)
    assert secret not in text
    assert text.count(HIDDEN) >= 4


def test_the_processs_own_secrets_are_hidden_however_they_are_written() -> None:
    secret = 'pass"word\\with\nall'
    code = f"""
        log = logging.getLogger("app")
        log.warning("%s and %r", {secret!r}, {secret!r})
    """
    for form in ("json", "console"):
        text = logged(code, form, "info", secret)
        assert text.count(HIDDEN) == 2
        assert "word" not in text


def test_the_text_of_an_error_moves_no_cursor_of_who_reads_the_log() -> None:
    code = r"""
        try:
            raise ValueError("\x1b[2J\rgone")
        except ValueError:
            logging.getLogger("app").exception("failed")
    """
    for form in ("json", "console"):
        text = logged(code, form)
        assert "gone" in text
        assert all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("postgresql+psycopg://me:p%40ss@db/x", f"postgresql+psycopg://{HIDDEN}@db/x"),
        ("redis://:secret@r:6379/0", f"redis://{HIDDEN}@r:6379/0"),
        ("Authorization: Bearer abcdef.ghi", f"Authorization: Bearer {HIDDEN}"),
        ("GET /x?secret=abc&a=1", f"GET /x?secret={HIDDEN}&a=1"),
        ("http://127.0.0.1:8000/v1/jobs", "http://127.0.0.1:8000/v1/jobs"),
        ("at 10:20 a bearer of news", "at 10:20 a bearer of news"),
    ],
)
def test_passwords_in_addresses_and_headers_are_hidden_and_nothing_else(
    line: str, expected: str
) -> None:
    assert redactor([])(line) == expected


def test_the_password_of_an_address_is_known_as_it_is_written_and_as_it_is_meant() -> None:
    assert password_of("redis://u:p%40ss@h") == ["p%40ss", "p@ss"]
    assert password_of("postgresql://adapter_safety:adapter_safety@h/d") == []  # no secret
    assert password_of("unix:///x.sock") == password_of(None) == password_of("http://[") == []


def test_what_is_bound_ends_with_its_block() -> None:
    unbind_all()
    bind(a=1)
    with bound(request_id="r"):
        assert (current(), request_id()) == ({"a": 1, "request_id": "r"}, "r")
    assert (current(), request_id()) == ({"a": 1}, None)
    unbind_all()


def test_what_a_collector_is_sent_along_is_known_as_it_is_written_and_as_it_is_meant() -> None:
    given = {
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=one%20secret,x-other=two",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-key=three",
    }
    assert {"one%20secret", "one secret", "two", "three"} <= set(secrets_in(given))
