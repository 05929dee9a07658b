import re
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from app.domain.errors import ConfigRefused
from app.intake.patterns import Patterns, resolve

MODULE = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("key", "matches"),
    [
        ("q_proj", True),
        ("self_attn.q_proj", True),
        (MODULE, True),
        ("^" + MODULE, True),
        ("proj", False),  # because a key begins after a dot
        ("attn.q_proj", False),
        ("model.layers", False),  # because a key ends where the name ends
        ("self.attn.q_proj", True),  # because a dot is any character
        (r"self\.attn\.q_proj", False),
        (".*", True),
        ("(q|k)_proj", True),
        (r"layers\.\d+\.self_attn\.(?:q|v)_proj", True),
        (r"layers\.[2-9]\..*", False),
        ("^q_proj", False),
        ("", False),
    ],
)
def test_a_key_matches_where_peft_says(key: str, matches: bool) -> None:
    assert (get_pattern_key([key], MODULE) == key) is matches
    assert resolve({key: "found"}, MODULE, "default") == ("found" if matches else "default")


def test_the_first_key_that_matches_wins_whatever_its_kind() -> None:
    assert resolve({"(q|k)_proj": 1, "q_proj": 2}, MODULE, 0) == 1
    assert resolve({"q_proj": 1, "(q|k)_proj": 2}, MODULE, 0) == 1
    assert resolve({"k_proj": 1, "v_.*": 2, ".*q_proj": 3, "q_proj": 4}, MODULE, 0) == 3
    assert resolve({MODULE: 1, "q_proj": 2}, MODULE, 0) == 1
    assert resolve({"q_proj": 1, MODULE: 2}, MODULE, 0) == 1


PARTS = st.sampled_from(["a", "b", "ab", "a_b", "0", "1", "q-p"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
KEYS = st.text("ab01_-.", max_size=5) | NAMES | st.text("ab.*+?()|[]^$\\d{}1,", max_size=7)


@settings(deadline=None)  # because the machine is shared
@given(keys=st.lists(KEYS, unique=True, max_size=4), name=NAMES)
def test_whatever_we_resolve_peft_resolves_alike(keys: list[str], name: str) -> None:
    table = {key: f"value {position}" for position, key in enumerate(keys)}
    try:
        found = resolve(table, name, "default")
    except ConfigRefused:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # because Python warns of some sets
        try:
            expected = table.get(get_pattern_key(keys, name), "default")
        except re.error:
            return  # PEFT cannot load such a configuration at all
    assert found == expected


@pytest.mark.parametrize(
    "key",
    ["(", "a)|(b", "(?=a)", "(?i)q_proj", r"(a)\1", r"\Z", r"\pL", "[[:alpha:]]+", "x{,3}", "a\\",
     "((a{1,99}){1,99}){1,99}", "x{2000}", "(?P<n>a)", r"\Qa\E"],
)  # fmt: skip
def test_a_key_that_re2_cannot_run_or_runs_otherwise_is_named(
    key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigRefused) as caught:
        Patterns({"fine": 1, key: 2}, "alpha_pattern")
    assert caught.value.facts["field"] == "alpha_pattern"
    assert f"the key {key}" in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("key", ["(a+)+$", "(a|a)*b", "(.*)*x", "(a?){30}a{30}"])
def test_a_key_that_blows_up_in_python_is_quick(key: str) -> None:
    started = time.perf_counter()
    assert resolve({key: 1}, "a" * 400 + "!", 0) == 0
    assert time.perf_counter() - started < 1


def test_ten_thousand_plain_keys_against_25_000_modules_take_seconds_not_minutes() -> None:
    modules = [f"model.layers.{n}.mlp.experts.{n % 128}.up_proj" for n in range(25_000)]
    patterns = Patterns({module: position for position, module in enumerate(modules[:10_000])})
    started = time.perf_counter()
    found = [patterns.resolve(module, -1) for module in modules]
    assert time.perf_counter() - started < 20
    assert found == [*range(10_000), *[-1] * 15_000]


@pytest.mark.parametrize(
    "keys",
    [
        [f"x.*{n}.*y{{500}}" for n in range(400)],
        [f"{n:016b}".translate({48: "a", 49: "."}) for n in range(8_192)],
    ],
)
def test_keys_that_cost_too_much_are_refused_after_seconds(keys: list[str]) -> None:
    patterns = Patterns(dict.fromkeys(keys, 1), "rank_pattern")
    started = time.perf_counter()
    with pytest.raises(ConfigRefused, match="cost too much"):
        [patterns.resolve("x" * 100 + ".bbbbbbbbbbbbbbbb", 0) for _ in range(25_000)]
    assert time.perf_counter() - started < 20


def test_ten_regular_expressions_against_a_large_model_do_not_cost_too_much() -> None:
    kinds = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")
    keys = [rf"model\.layers\.({n}|{n}[0-9]|[3-9]\d)\..*({kind})" for n, kind in
            enumerate([*kinds, *kinds[:3]])]  # fmt: skip
    patterns = Patterns(dict.fromkeys(keys, 1))
    modules = [f"model.layers.{n}.self_attn.{kind}" for n in range(160) for kind in kinds]
    assert sum(patterns.resolve(module, 0) for module in modules) > 0


def test_too_many_regular_expressions_are_refused() -> None:
    with pytest.raises(ConfigRefused, match="more than 500"):
        Patterns({f"(a|b){n}": n for n in range(501)})
