"""Policy files: read strictly, each fault by its place in the file."""

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.api.policy_file import MAX_BYTES, PolicyFile, parse_policy, read_policy
from app.domain.errors import InvalidField
from app.domain.method import Selection
from app.domain.policy import MAX_NAME_CHARS, Pair
from app.domain.verdict_errors import PolicyRefused

PAIR = {"match": "org/{name}", "base": "org/{name}-base", "chat": "org/{name}@main"}
SOUND: dict[str, Any] = {"version": 1, "repositories": {"include": ["acme/*"]}, "pairs": [PAIR]}


def raw(**changes: Any) -> bytes:
    return yaml.safe_dump({**SOUND, **changes}).encode()


def fault(content: bytes) -> tuple[str, str]:
    with pytest.raises(PolicyRefused) as caught:
        parse_policy(content)
    return str(caught.value.facts["field"]), str(caught.value.facts["reason"])


def test_a_short_policy_does_nothing_but_look() -> None:
    policy = parse_policy(raw())
    assert (policy.tenant, policy.dry_run, policy.gate) == ("default", False, None)
    assert policy.repositories.branches == ("main",)
    assert policy.plan("acme/x", "org/seven").actions_for("review") == ()


def test_the_documented_policy_is_sound() -> None:
    page = (Path(__file__).parents[2] / "docs" / "moderation-bot.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    policy = parse_policy(block.encode())
    assert policy.dry_run
    plan = policy.plan("acme/x", "meta-llama/Llama-2-7b-chat-hf")
    assert plan.base_model == "meta-llama/Llama-2-7b-hf"
    assert plan.actions_for("patched") == ("pull_request", "webhook")


def test_the_version_is_the_digest_of_the_file() -> None:
    assert len(parse_policy(raw()).version) == 64
    assert parse_policy(raw()).version != parse_policy(raw() + b"# a remark\n").version


def test_method_and_gate_are_those_of_a_job() -> None:
    method = {"name": "safe_lora", "projector": "subspace", "select": {"by": "count", "value": 3}}
    gate = {"harmful": "a" * 64, "judge": "logprob"}
    policy = parse_policy(raw(method=method, require="no_worse", gate=gate))
    assert (policy.method.projector, policy.method.select) == ("subspace", Selection("count", 3))
    assert policy.gate is not None
    assert policy.gate.judging.safety == "logprob"


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"version": 2}, "version", "Input should be 1"),
        ({"verison": 1}, "verison", "Extra inputs"),
        ({"repositories": {}}, "repositories.include", "required"),
        ({"repositories": {"include": []}}, "repositories.include", "at least 1"),
        ({"repositories": {"include": ["a", 3]}}, "repositories.include[1]", "valid string"),
        ({"pairs": []}, "pairs", "at least 1"),
        ({"pairs": [PAIR, {**PAIR}, {"match": "a", "base": "b"}]}, "pairs[2].chat", "required"),
        ({"pairs": [PAIR, {"match": "a", "chat": "c"}]}, "pairs[1].base", "'safe_lora' needs one"),
        ({"pairs": [{**PAIR, "chat": "{other}"}]}, "pairs[0].chat", "{other} is not in match"),
        ({"pairs": [{**PAIR, "base": "org/*"}]}, "pairs[0].base", "has no *"),
        ({"pairs": [{**PAIR, "match": "{name}/{name}"}]}, "pairs[0].match", "twice"),
        ({"pairs": [{**PAIR, "match": "{name}*****"}]}, "pairs[0].match", "more than 3"),
        ({"method": {"name": "magic"}}, "method.name", "Input should be"),
        ({"method": {"projector": "exact", "rank": 2}}, "method.rank", "takes no rank"),
        ({"method": {"select": {"by": "count", "value": 0}}}, "method.select.value", "pass"),
        ({"method": {"select": {"by": "threshold", "value": -1}}}, "method.select.value", "pass"),
        ({"method": {"select": {"by": "count", "value": "3"}}}, "method.select.value", "number"),
        ({"require": "no_worse"}, "gate", "is missing"),
        ({"gate": {"harmful": "a"}}, "require", "is missing"),
        ({"require": "no_worse", "gate": {}}, "gate.harmful", "required"),
        ({"thresholds": {"min_kept_pdst": 2}}, "thresholds.min_kept_pdst", "[0, 1]"),
        ({"thresholds": {"max_projected": 1}}, "thresholds.max_projected", "Extra inputs"),
        ({"actions": {"passed": []}}, "actions.passed", "Extra inputs"),
        ({"actions": {"pass": ["shout"]}}, "actions.pass[0]", "Input should be"),
        ({"actions": {"review": ["pull_request"]}}, "actions.review", "'patched' alone"),
        ({"actions": {"pass": ["nothing", "webhook"]}}, "actions.pass", "stands alone"),
        ({"actions": {"review": ["discussion", "comment"]}}, "actions.review", "not both"),
        ({"actions": {"review": ["webhook", "webhook"]}}, "actions.review", "twice"),
        ({"tenant": "Not A Tenant"}, "tenant", "a-z"),
        ({"dry_run": "yes"}, "dry_run", "boolean"),
    ],
)  # fmt: skip
def test_a_fault_is_told_by_its_place(changes: dict[str, Any], field: str, reason: str) -> None:
    found = fault(raw(**changes))
    assert found[0] == field
    assert reason in found[1]


@pytest.mark.parametrize(
    ("content", "field", "reason"),
    [
        (b"a: 1\nb: 2\na: 3\n", "line 3, column 1", "the key 'a' is there twice"),
        (b"a: &x [1]\nb: *x\n", "line 2, column 4", "aliases are not taken"),
        (b"a: [1\n", "line 2, column 1", "expected"),
        (b"a: !!python/object/apply:os.system [x]\n", "line 1, column 4", "could not determine"),
        (b"? [1, 2]\n: 3\n", "line 1, column 3", "a key is a word"),
        (b"", "the file", "dictionary"),
        (b"\xff\xfe\x00", "the file", ""),
        (b"[" * 5000, "the file", ""),
        (b"# " + b"x" * MAX_BYTES, "the file", "larger than"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(content: bytes, field: str, reason: str) -> None:
    found = fault(content)
    assert found[0] == field
    assert reason in found[1]


@pytest.mark.parametrize(
    ("match", "name", "models"),
    [
        ("org/{n}", "org/seven-b.1_x", ("base", "seven-b.1_x")),
        ("org/{n}", "org/a/b", None),
        ("org/{n}", "org/../x", None),
        ("org/{n}", "org/", None),
        ("org/{n}", "xorg/a", None),
        ("org/{n}", "org/a@evil", None),
        ("org/{n}", "org/a\n", None),
        ("org/{n}-chat", "org/seven-chat", ("base", "seven")),
        ("*/{n}", "anything/at/all", ("base", "all")),
        ("o.g/{n}", "org/a", None),
        ("{n}", "x" * (MAX_NAME_CHARS + 1), None),
        ("org/{n}", "", None),
    ],
)
def test_a_pair_is_of_the_names_that_its_pattern_has(
    match: str, name: str, models: tuple[str, str] | None
) -> None:
    assert Pair(match, "base", "{n}").models(name) == models


@pytest.mark.parametrize("match", ["{n}{m}", "org/{n}*", "*{n}", "**", "a*b*c*d*e"])
def test_a_pattern_that_could_be_matched_in_many_ways_is_refused(match: str) -> None:
    with pytest.raises(InvalidField, match="wildcards"):
        Pair(match, "base", "chat")


@pytest.mark.parametrize("match", ["*-*-*-x", "{n}-{m}-{o}/x", "{n}a{m}a{o}/x"])
def test_a_name_that_almost_matches_takes_no_time(match: str) -> None:
    pair = Pair(match, "base", "chat")
    begun_s = time.process_time()
    for name in ("-" * MAX_NAME_CHARS, "a-" * (MAX_NAME_CHARS // 2), "a" * MAX_NAME_CHARS):
        assert pair.models(name) is None
    assert time.process_time() - begun_s < 1


def test_the_first_pair_that_matches_decides() -> None:
    pairs = [{**PAIR, "match": "org/a"}, {**PAIR, "match": "org/*"}, {**PAIR, "match": "*"}]
    plain = [{**pair, "base": f"b{i}", "chat": f"c{i}"} for i, pair in enumerate(pairs)]
    policy = parse_policy(raw(pairs=plain))
    chosen = [policy.plan("acme/x", name).chat_model for name in ("org/a", "org/b", "c", None)]
    assert chosen == ["c0", "c1", "c2", "c2"]


def test_a_changed_file_is_read_again_and_a_broken_one_keeps_the_last(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    reads: list[Path] = []
    file = PolicyFile(path, lambda found: (reads.append(found), read_policy(found))[1])
    assert file.policy() is None
    assert str(file.state().problem) == "the file: No such file or directory"
    path.write_bytes(raw())
    first = file.policy()
    assert first is not None
    count = len(reads)
    assert file.policy() is first
    assert len(reads) == count
    path.write_bytes(b"version: 3")
    assert file.policy() is first
    assert file.state().problem is not None
    path.write_bytes(raw(dry_run=True))
    os.utime(path, ns=(1, 1))
    assert file.state().problem is None
    found = file.policy()
    assert found is not None
    assert found.dry_run
    path.unlink()
    assert file.policy() is found
