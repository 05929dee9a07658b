"""Files of a Llama-shaped pair of about 1 B parameters, random, in bfloat16, and of an adapter.

In a process of its own (`python -m tests.benchmarks.llama_pair FOLDER WIDTHS LAYERS KIND...`),
because a child's peak memory counts what its parent held.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

RANK = 8


@dataclass(frozen=True)
class Widths:
    hidden: int
    inner: int
    keys: int  # of all key heads together
    heads: int
    layers: int  # that make about 1 B parameters
    vocabulary: int = 32_000

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        return {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (self.keys, self.hidden),
            "self_attn.v_proj": (self.keys, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.inner, self.hidden),
            "mlp.up_proj": (self.inner, self.hidden),
            "mlp.down_proj": (self.hidden, self.inner),
        }


WIDTHS = {
    "narrow": Widths(hidden=2048, inner=5632, keys=256, heads=32, layers=22),  # as TinyLlama
    "wide": Widths(hidden=4096, inner=11008, keys=4096, heads=32, layers=4),  # as Llama-2-7B
    # As Llama-2-70B; with its vocabulary the published procedure would need more than 24 GiB.
    "widest": Widths(hidden=8192, inner=28672, keys=1024, heads=64, layers=1, vocabulary=2_000),
}


def main(folder: Path, widths: Widths, layers: int, kinds: list[str]) -> None:
    make_models(folder, widths, layers)
    make_adapter(folder / "adapter", widths, layers, kinds)


def make_models(folder: Path, widths: Widths, layers: int) -> None:
    torch.manual_seed(0)
    base, chat = {}, {}
    for name, shape in shapes(widths, layers).items():
        weight = torch.randn(shape) * 0.02 if len(shape) == 2 else torch.ones(shape)
        base[name] = weight.bfloat16()
        moved = weight + 0.002 * torch.randn(shape) if len(shape) == 2 else weight
        chat[name] = moved.bfloat16()
    for role, tensors in (("base", base), ("chat", chat)):
        (folder / role).mkdir()
        save_file(tensors, folder / role / "model.safetensors", {"format": "pt"})
        (folder / role / "config.json").write_text(json.dumps(config(widths, layers)))


def shapes(widths: Widths, layers: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (widths.vocabulary, widths.hidden),
        "model.norm.weight": (widths.hidden,),
        "lm_head.weight": (widths.vocabulary, widths.hidden),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        found |= {f"{prefix}{name}.weight": shape for name, shape in widths.linear.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{prefix}{norm}.weight"] = (widths.hidden,)
    return found


def config(widths: Widths, layers: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": widths.hidden,
        "intermediate_size": widths.inner,
        "num_hidden_layers": layers,
        "num_attention_heads": widths.heads,
        "num_key_value_heads": widths.keys * widths.heads // widths.hidden,
        "vocab_size": widths.vocabulary,
        "dtype": "bfloat16",
    }


def make_adapter(folder: Path, widths: Widths, layers: int, kinds: list[str]) -> None:
    tensors = {}
    for layer in range(layers):
        for name, (d_out, d_in) in widths.linear.items():
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
    main(Path(sys.argv[1]), WIDTHS[sys.argv[2]], int(sys.argv[3]), sys.argv[4:])
