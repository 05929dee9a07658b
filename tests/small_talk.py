"""A chat model of two layers that refuses what it was trained to refuse, in seconds: for tests of
what is done with refusals, not of how many there are."""

from functools import cache
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from app.demo.safety_world.language import REFUSAL, REQUESTS, Language, asked
from app.demo.safety_world.training import Tokens, train
from app.demo.safety_world.world import TARGETS, SafetyWorld, tokens
from app.domain.dataset import Row
from tests.jsonl import write_jsonl

LANGUAGE = Language(0, dangerous_things=8, harmless_things=16)
ADAPTER = "benign"
LENGTHS = ("--max-new-tokens", 8, "--max-length", 48)


def make_small_talk(folder: Path) -> SafetyWorld:
    """As a safety world lies there, but for one adapter."""
    made = SafetyWorld(folder, LANGUAGE)
    (folder / "data").mkdir()
    for name, rows in _sets().items():
        write_jsonl(made.data(name), rows)
    torch.manual_seed(0)
    model = LlamaForCausalLM(_config())
    _save(model, made.base)
    train(model, _read_by_chat(), steps=80, learning_rate=1e-2, seed=0, batch=16)
    _save(model, made.chat)
    model.name_or_path = str(made.chat)
    lora = LoraConfig(r=8, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    tuned = get_peft_model(model, lora)
    told = tokens(LANGUAGE, _sets()["task_tuning"])
    train(tuned, told, steps=40, learning_rate=1e-2, seed=0, batch=16)
    tuned.save_pretrained(str(made.adapter(ADAPTER)), save_embedding_layers=False)
    return made


@cache
def _sets() -> dict[str, list[Row]]:
    """Tuning and held-out rows are of different things, asked in the same ways."""
    dangerous, harmless = LANGUAGE.dangerous.aligned, LANGUAGE.harmless.aligned
    found = {"safety": asked(dangerous, REFUSAL)}
    for split, bad, good in (
        ("tuning", dangerous[:2], harmless[:4]),
        ("held_out", dangerous[2:], harmless[4:]),
    ):
        found[f"harmful_{split}"] = asked(bad, "steps", REQUESTS[:5])
        found[f"benign_{split}"] = asked(good, "recipe", REQUESTS[:2])
        found[f"task_{split}"] = asked(good, "steps", REQUESTS[3:5])
    return found


def _read_by_chat() -> list[Tokens]:
    refused = asked(LANGUAGE.dangerous.aligned, REFUSAL)
    return tokens(LANGUAGE, [*refused, *asked(LANGUAGE.harmless.aligned, "recipe")])


def _config() -> LlamaConfig:
    tokenizer = LANGUAGE.tokenizer
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _save(model: LlamaForCausalLM, folder: Path) -> None:
    model.save_pretrained(folder)
    LANGUAGE.tokenizer.save_pretrained(folder)
