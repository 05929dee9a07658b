"""Would a serving system load this adapter, and compute what PEFT computes?

The rules are data (`serving_rules.json`), each with its source and the day it was read. They are
what those sources said, not tests of the systems.
"""

import json
from collections.abc import Mapping, Set
from functools import cache
from importlib.resources import files
from typing import Any

from app.domain.adapter import AdapterManifest, kind_of
from app.domain.report import Serving, ServingLoads

EFFECTS: tuple[ServingLoads, ...] = ("refused", "wrong", "unknown", "setting")
"""The gravest first."""


def serving_of(manifest: AdapterManifest) -> list[Serving]:
    """One entry for each system that there are rules for."""
    facts, rules = _facts(manifest), _rules()
    return [_judged(system, facts, rules["read"]) for system in rules["systems"]]


def _judged(system: Mapping[str, Any], facts: Mapping[str, Any], read: str) -> Serving:
    hit = [rule for rule in system["rules"] if _applies(rule, facts[rule["fact"]])]
    effects = {rule["effect"] for rule in hit}
    return Serving(
        system=system["system"],
        loads=next((effect for effect in EFFECTS if effect in effects), "yes"),
        reasons=[rule["reason"] for rule in hit],
        source=system["source"],
        read=read,
    )


def _applies(rule: Mapping[str, Any], value: Any) -> bool:
    if "equals" in rule:
        return bool(value == rule["equals"])
    if "above" in rule:
        return bool(value > rule["above"])
    if "below" in rule:
        return bool(value < rule["below"])
    return not value <= set(rule["outside"])


def _facts(manifest: AdapterManifest) -> dict[str, Any]:
    config, ranks = manifest.config, [module.rank for module in manifest.modules]
    return {
        "use_dora": bool(config.get("use_dora")),
        "modules_to_save": bool(config.get("modules_to_save")),
        "bias": config.get("bias", "none") != "none" or bool(config.get("lora_bias")),
        "embedding": any(module.layer_type == "embedding" for module in manifest.modules),
        "use_rslora": bool(config.get("use_rslora")),
        "target_parameters": bool(config.get("target_parameters")),
        "rank_pattern": any(rank != config["r"] for rank in ranks),
        "alpha_pattern": any(m.alpha != config["lora_alpha"] for m in manifest.modules),
        "max_rank": max(ranks),
        "min_rank": min(ranks),
        "kinds": {kind_of(module.name) for module in manifest.modules},
        "every_layer": _is_in_every_layer({module.name for module in manifest.modules}),
    }


def _is_in_every_layer(modules: Set[str]) -> bool:
    """Whether each kind of module is in as many layers as the others.

    The file alone does not say how many layers the model has, so a kind that is missing from the
    same layers as all others (`layers_to_transform`) is told by the gap in the numbers.
    """
    numbers: dict[str, set[int]] = {}
    for name in modules:
        parts = name.split(".")
        at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        if at is not None:
            shape = ".".join([*parts[:at], "*", *parts[at + 1 :]])
            numbers.setdefault(shape, set()).add(int(parts[at]))
    found = list(numbers.values())
    whole = set().union(*found) if found else set()
    return all(layers == whole for layers in found) and whole == set(range(len(whole)))


@cache
def _rules() -> dict[str, Any]:
    text = files("app.jobs").joinpath("serving_rules.json").read_text(encoding="utf-8")
    rules: dict[str, Any] = json.loads(text)
    return rules
