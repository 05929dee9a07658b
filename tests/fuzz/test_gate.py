"""Whatever is sent, the gate accepts what is consistent, or refuses; nothing else ever happens."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.edits import ODD, Choose, edited_json, edited_pair, laid_out
from tests.fuzz.honest import HONEST
from tests.fuzz.target import as_archive, as_pair, passes
from tests.intake.files import GOOD_FILES, tarred, zipped

KINDS = sorted(HONEST)
PACKED = [zipped(GOOD_FILES), zipped(GOOD_FILES, 0), tarred(GOOD_FILES), tarred(GOOD_FILES, "w:gz")]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "copy"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=3,
)


def damaged(raw: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for how, where, piece in edits:
        at = int(where * (len(raw) + 1))
        end = at + len(piece)
        raw = raw[:at] + changed(how, raw[at:end], piece) + raw[end:]
    return raw


def changed(how: str, old: bytes, piece: bytes) -> bytes:
    flipped = bytes(a ^ b for a, b in zip(old, piece, strict=False))
    return {"flip": flipped, "cut": b"", "insert": piece + old, "copy": old * 2}[how]


def chooser(draw: st.DrawFn) -> Choose:
    return lambda count: draw(st.integers(0, count - 1))


@st.composite
def edited_adapters(draw: st.DrawFn) -> tuple[bytes, bytes]:
    return edited_pair(draw(st.sampled_from(KINDS)), chooser(draw))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_sound_adapter_passes(kind: str) -> None:
    assert passes(as_pair(HONEST[kind].config_bytes, HONEST[kind].weights))


@settings(max_examples=1500)
@given(adapter=edited_adapters())
def test_edited_adapters_are_consistent_or_refused(adapter: tuple[bytes, bytes]) -> None:
    passes(as_pair(*adapter))


@settings(max_examples=800)
@given(kind=st.sampled_from(KINDS), edits=EDITS)
def test_damaged_weights_are_consistent_or_refused(
    kind: str, edits: list[tuple[str, float, bytes]]
) -> None:
    passes(as_pair(HONEST[kind].config_bytes, damaged(HONEST[kind].weights, edits)))


@settings(max_examples=200)
@given(kind=st.sampled_from(KINDS), edits=EDITS)
def test_damaged_headers_are_consistent_or_refused(
    kind: str, edits: list[tuple[str, float, bytes]]
) -> None:
    """With a length that still fits, so that the JSON is what is broken."""
    weights = HONEST[kind].weights
    length = int.from_bytes(weights[:8], "little")
    header = damaged(weights[8 : 8 + length], edits)
    framed = len(header).to_bytes(8, "little") + header + weights[8 + length :]
    passes(as_pair(HONEST[kind].config_bytes, framed))


@settings(max_examples=200)
@given(kind=st.sampled_from(KINDS), edits=EDITS)
def test_damaged_configurations_are_consistent_or_refused(
    kind: str, edits: list[tuple[str, float, bytes]]
) -> None:
    passes(as_pair(damaged(HONEST[kind].config_bytes, edits), HONEST[kind].weights))


@settings(max_examples=800)
@given(packed=st.sampled_from(PACKED), edits=EDITS)
def test_damaged_archives_are_consistent_or_refused(
    packed: bytes, edits: list[tuple[str, float, bytes]]
) -> None:
    passes(as_archive(damaged(packed, edits)))


@settings(max_examples=200)
@given(
    header=st.dictionaries(
        st.sampled_from(["__metadata__", "a", "base_model.model.q.lora_A.weight"])
        | st.text(max_size=8),
        st.sampled_from(ODD)
        | st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "BF16", "F4", "I8", "C64"]),
                "shape": st.lists(st.integers(-1, 9), max_size=4) | st.sampled_from(ODD),
                "data_offsets": st.lists(st.integers(-1, 99), max_size=3) | st.sampled_from(ODD),
            }
        ),
        max_size=4,
    )
)
def test_headers_made_up_are_consistent_or_refused(header: dict[str, object]) -> None:
    passes(as_pair(HONEST["linear"].config_bytes, laid_out(header)))


def test_edits_are_the_same_for_the_same_choices_and_some_of_them_pass() -> None:
    made = [edited_pair("linear", random.Random(seed).randrange) for seed in range(40)]
    assert made == [edited_pair("linear", random.Random(seed).randrange) for seed in range(40)]
    assert 0 < sum(passes(as_pair(*adapter)) for adapter in made) < len(made)


def test_an_edit_leaves_what_it_starts_from_alone() -> None:
    before = HONEST["dora"].config_bytes
    for seed in range(20):
        edited_json(HONEST["dora"].config, ("r",), random.Random(seed).randrange)
    assert HONEST["dora"].config_bytes == before
