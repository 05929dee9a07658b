"""Sound adapters, changed at random: accepted consistently, or refused; nothing else, ever."""

import json
import struct
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.adapter import CONFIG_FILE
from tests.fuzz.target import as_archive, as_pair, passes
from tests.intake.files import CONFIG, GOOD_FILES, GOOD_WEIGHTS, frame, tarred, zipped

SOME = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,  # the same in every run; `make fuzz` looks further
    suppress_health_check=[HealthCheck.too_slow],
)
HEADER_END = 8 + struct.unpack("<Q", GOOD_WEIGHTS[:8])[0]
HEADER = json.loads(GOOD_WEIGHTS[8:HEADER_END])
GOOD_CONFIG = GOOD_FILES[CONFIG_FILE]
ARCHIVES = [zipped(GOOD_FILES), tarred(GOOD_FILES), tarred(GOOD_FILES, "w:gz")]

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.sampled_from(["F32", "BF16", "LORA", "default", "weight", "q_proj", "../x", "\x00"]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
Edit = Callable[[bytes], bytes]


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """Some bytes are flipped, cut out, doubled or put in."""
    kinds = draw(
        st.lists(st.sampled_from(["flip", "cut", "double", "insert"]), min_size=1, max_size=4)
    )
    steps = [
        (kind, draw(st.floats(0, 1)), draw(st.binary(min_size=1, max_size=6))) for kind in kinds
    ]

    def edit(raw: bytes) -> bytes:
        for kind, share, data in steps:
            at = int(share * max(0, len(raw) - 1))
            raw = {
                "flip": raw[:at] + data + raw[at + len(data) :],
                "cut": raw[:at] + raw[at + len(data) :],
                "double": raw[:at] + raw[at : at + 16] + raw[at:],
                "insert": raw[:at] + data + raw[at:],
            }[kind]
        return raw

    return edit


@st.composite
def replaced(draw: st.DrawFn, whole: Any) -> Any:
    """A JSON value of which one part, wherever it lies, is another, missing or renamed."""
    if isinstance(whole, dict) and whole and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(whole)))
        rest = {name: value for name, value in whole.items() if name != key}
        kind = draw(st.integers(0, 5))
        if kind == 0:
            return rest
        if kind == 1:
            return {**rest, draw(st.text(max_size=40)): whole[key]}
        return {**rest, key: draw(replaced(whole[key]))}
    if isinstance(whole, list) and whole and draw(st.booleans()):
        at = draw(st.integers(0, len(whole) - 1))
        return [*whole[:at], draw(replaced(whole[at])), *whole[at + 1 :]]
    return draw(values)


@given(edits())
@SOME
def test_weights_with_other_bytes(edit: Edit) -> None:
    passes(as_pair(GOOD_CONFIG, edit(GOOD_WEIGHTS)))


@given(edits())
@SOME
def test_a_configuration_with_other_bytes(edit: Edit) -> None:
    passes(as_pair(edit(GOOD_CONFIG), GOOD_WEIGHTS))


@given(replaced(HEADER))
@SOME
def test_weights_with_another_header(header: object) -> None:
    passes(as_pair(GOOD_CONFIG, frame(header, GOOD_WEIGHTS[HEADER_END:])))


@given(replaced(dict(CONFIG)))
@SOME
def test_another_configuration(config: object) -> None:
    passes(as_pair(json.dumps(config).encode("utf-8", "surrogatepass"), GOOD_WEIGHTS))


@given(st.sampled_from(ARCHIVES), edits())
@SOME
def test_an_archive_with_other_bytes(archive: bytes, edit: Edit) -> None:
    passes(as_archive(edit(archive)))


@given(st.dictionaries(st.text(min_size=1, max_size=30), st.binary(max_size=30), max_size=3))
@SOME
def test_an_archive_with_other_files(others: dict[str, bytes]) -> None:
    entries = {**GOOD_FILES, **others}
    encodable = {name: raw for name, raw in entries.items() if name.isprintable()}
    passes(as_archive(zipped(encodable)))


def test_the_checks_accept_what_is_sound() -> None:
    assert passes(as_pair(GOOD_CONFIG, GOOD_WEIGHTS))
    assert all(passes(as_archive(archive)) for archive in ARCHIVES)
