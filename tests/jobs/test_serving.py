"""The serving section: each rule once, and the data file's own shape."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from app.domain.adapter import AdapterManifest
from app.intake.manifest import read_manifest
from app.jobs.serving import EFFECTS, _facts, _rules, serving_of
from tests.factory import make_world


def manifest(folder: Path, **config: object) -> AdapterManifest:
    return read_manifest(make_world(folder, **config).adapter)


def verdicts(found: AdapterManifest) -> dict[str, str]:
    return {system.system: system.loads for system in serving_of(found)}


def test_a_plain_adapter_loads_everywhere(tmp_path: Path) -> None:
    assert verdicts(manifest(tmp_path)) == {
        "vLLM": "yes",
        "SGLang": "setting",
        "LoRAX": "yes",
        "Fireworks": "yes",
        "Together": "yes",
    }


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"rank_pattern": {"q_proj": 6}},
            {"vLLM": "wrong", "LoRAX": "wrong", "Fireworks": "wrong"},
        ),
        ({"alpha_pattern": {"q_proj": 1}}, {"vLLM": "wrong", "LoRAX": "wrong"}),
        ({"use_rslora": True}, {"vLLM": "yes", "LoRAX": "yes", "Fireworks": "wrong"}),
        ({"r": 17}, {"vLLM": "setting", "Fireworks": "yes"}),
        ({"r": 65}, {"vLLM": "setting", "Fireworks": "refused"}),
        ({"r": 3}, {"vLLM": "yes", "Fireworks": "refused"}),
        ({"use_dora": True}, {"vLLM": "refused", "LoRAX": "wrong"}),
        ({"target_modules": ["embed_tokens"]}, {"LoRAX": "wrong", "vLLM": "yes"}),
        ({"layers_to_transform": [1]}, {"LoRAX": "wrong"}),
        ({"target_modules": ["lm_head"], "layers_to_transform": None}, {"Fireworks": "refused"}),
    ],
    ids=str,
)
def test_a_field_stands_in_the_way_where_a_source_says_so(
    tmp_path: Path, config: dict[str, Any], expected: dict[str, str]
) -> None:
    found = verdicts(manifest(tmp_path, **config))
    assert {system: found[system] for system in expected} == expected


def test_what_no_source_speaks_of_is_unknown_and_not_yes(tmp_path: Path) -> None:
    found = manifest(tmp_path)
    config = {**found.config, "target_parameters": ["mlp.experts.down_proj"]}
    judged = verdicts(replace(found, config=config))
    assert "yes" not in judged.values()
    assert judged["Together"] == "unknown"


def test_one_kind_that_one_layer_lacks_is_told(tmp_path: Path) -> None:
    found = manifest(tmp_path)
    without = [m for m in found.modules if m.name != "model.layers.1.self_attn.q_proj"]
    assert verdicts(replace(found, modules=tuple(without)))["LoRAX"] == "wrong"


def test_the_gravest_reason_decides_and_all_are_told(tmp_path: Path) -> None:
    found = manifest(tmp_path, r=65, use_rslora=True)
    (fireworks,) = [s for s in serving_of(found) if s.system == "Fireworks"]
    assert fireworks.loads == "refused"
    assert len(fireworks.reasons) == 2


def test_every_rule_has_a_fact_an_effect_and_a_reason(tmp_path: Path) -> None:
    facts = _facts(manifest(tmp_path))
    date.fromisoformat(_rules()["read"])
    for system in _rules()["systems"]:
        assert system["source"]
        for rule in system["rules"]:
            assert rule["fact"] in facts
            assert rule["effect"] in EFFECTS
            assert rule["reason"]
            assert len({"equals", "above", "below", "outside"} & rule.keys()) == 1
