"""Files of a Llama-shaped pair of about 1 B parameters, random, in bfloat16, and of an adapter.

In a process of its own (`python -m tests.benchmarks.llama_pair FOLDER LAYERS KIND...`), because a
child's peak memory counts what its parent held.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, INNER, KEYS, VOCABULARY, RANK = 2048, 5632, 256, 32_000, 8
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}


def main(folder: Path, layers: int, kinds: list[str]) -> None:
    make_models(folder, layers)
    make_adapter(folder / "adapter", layers, kinds)


def make_models(folder: Path, layers: int) -> None:
    torch.manual_seed(0)
    base, chat = {}, {}
    for name, shape in shapes(layers).items():
        weight = torch.randn(shape) * 0.02 if len(shape) == 2 else torch.ones(shape)
        base[name] = weight.bfloat16()
        moved = weight + 0.002 * torch.randn(shape) if len(shape) == 2 else weight
        chat[name] = moved.bfloat16()
    for role, tensors in (("base", base), ("chat", chat)):
        (folder / role).mkdir()
        save_file(tensors, folder / role / "model.safetensors", {"format": "pt"})
        (folder / role / "config.json").write_text(json.dumps(config(layers)))


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        found |= {f"{prefix}{name}.weight": shape for name, shape in LINEAR.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{prefix}{norm}.weight"] = (HIDDEN,)
    return found


def config(layers: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": VOCABULARY,
        "dtype": "bfloat16",
    }


def make_adapter(folder: Path, layers: int, kinds: list[str]) -> None:
    tensors = {}
    for layer in range(layers):
        for name, (d_out, d_in) in LINEAR.items():
            if name.split(".")[1] in kinds:
                prefix = f"base_model.model.model.layers.{layer}.{name}.lora_"
                tensors[f"{prefix}A.weight"] = torch.randn(RANK, d_in)
                tensors[f"{prefix}B.weight"] = torch.randn(d_out, RANK) * 0.01
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    said = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "target_modules": kinds,
            "task_type": "CAUSAL_LM", "base_model_name_or_path": "chat"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
