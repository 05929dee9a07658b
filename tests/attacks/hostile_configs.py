"""Hostile `adapter_config.json`."""

from collections.abc import Callable

from app.domain import errors as e
from app.domain.adapter import CONFIG_FILE
from tests.attacks.hostile import Hostile
from tests.intake.files import config_bytes


def text(json_text: str) -> Callable[[], bytes]:
    """The sound configuration with this put in before its end."""
    return lambda: config_bytes()[:-1] + b", " + json_text.encode() + b"}"


def changed(**changes: object) -> Callable[[], bytes]:
    return lambda: config_bytes(**changes)


REFUSED = e.ConfigRefused
CONFIGS = [
    Hostile("not JSON", lambda: b"r: 8", REFUSED, "JSON"),
    Hostile("nothing", lambda: b"", REFUSED, "JSON"),
    Hostile("a list", lambda: b"[]", REFUSED, "object"),
    Hostile("a rank of 0", changed(r=0), REFUSED, "field r"),
    Hostile("a rank of 10**9", changed(r=10**9), REFUSED, "field r"),
    Hostile("a rank of true", changed(r=True), REFUSED, "field r"),
    Hostile("a rank of 2.0", changed(r=2.0), REFUSED, "field r"),
    Hostile("a rank in words", changed(r="2"), REFUSED, "field r"),
    Hostile("a rank of 10,000 digits", text('"x": 1' + "0" * 10_000), REFUSED, "out of range"),
    Hostile("two ranks", text('"r": 64'), REFUSED, "duplicate key r"),
    Hostile("two ranks, one escaped", text('"\\u0072": 64'), REFUSED, "duplicate key r"),
    Hostile("an alpha of NaN", text('"x": NaN'), REFUSED, "NaN"),
    Hostile("an alpha of 1e999", text('"x": 1e999'), REFUSED, "1e999"),
    Hostile("an alpha of 1e300", changed(lora_alpha=1e300), REFUSED, "lora_alpha"),
    Hostile("a negative alpha", changed(lora_alpha=-1), REFUSED, "lora_alpha"),
    Hostile("a rank pattern of 10**9", changed(rank_pattern={"q": 10**9}), REFUSED,
            "rank_pattern[q]"),
    Hostile("100,000 rank patterns", changed(rank_pattern={f"{n}": 1 for n in range(50_000)}),
            REFUSED, "rank_pattern"),
    Hostile("a pattern that RE2 cannot run", changed(rank_pattern={"(?=x)": 2}), REFUSED, "(?=x)"),
    Hostile("a pattern that escapes PEFT's group", changed(alpha_pattern={"x)|(.*": 99}), REFUSED,
            "x)|(.*"),
    Hostile("a repetition bomb", changed(rank_pattern={"((x{99}){99}){99}": 2}), REFUSED, "{99}"),
    Hostile("nested 100,000 deep", text('"x": ' + "[" * 10**5 + "]" * 10**5), REFUSED, "nested"),
    Hostile("nested 100 deep", text('"eva_config": ' + '{"a":' * 99 + "1" + "}" * 99), REFUSED,
            "nested"),
    Hostile("a lone surrogate", text(r'"revision": "\udfff"'), REFUSED, "surrogate"),
    Hostile("a megabyte and more", lambda: config_bytes().ljust((1 << 20) + 1), e.TooLarge,
            CONFIG_FILE),
    Hostile("layer replication", changed(layer_replication=[[0, 32]] * 1000),
            e.UnsupportedAdapter, "layer_replication"),
    Hostile("saved modules that are not there", changed(modules_to_save=["lm_head"]), REFUSED,
            "modules_to_save"),
    Hostile("a hundred thousand saved modules", changed(modules_to_save=["a"] * 10**5), REFUSED,
            "modules_to_save"),
    Hostile("a hundred thousand token indices",
            changed(trainable_token_indices=list(range(10**5))), REFUSED,
            "trainable_token_indices"),
    Hostile("CorDA's cache file", changed(corda_config={"cache_file": "/tmp/evil.pt"}),
            e.UnsupportedAdapter, "corda_config"),
    Hostile("another PEFT type", changed(peft_type="__import__('os')"), e.UnsupportedAdapter,
            "peft_type"),
]  # fmt: skip
