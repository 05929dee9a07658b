"""A pair of models in several shards and their adapter, in folders and on a hub."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from app.storage.hub import ranges
from tests.factory import perturb, save_adapter
from tests.hub.server import LocalHub

BASE, CHAT, ADAPTER = "org/base", "org/chat", "someone/adapter"
LAYERS, SHARD_SIZE = 4, "900KB"


@dataclass(frozen=True)
class HubWorld:
    """The same in folders (`root/local/base`, ...) and on the hub (`org/base`, ...)."""

    root: Path

    @property
    def base(self) -> Path:
        return self.root / "local" / "base"

    @property
    def chat(self) -> Path:
        return self.root / "local" / "chat"

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    def weights_bytes(self, folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def make_hub_world(root: Path) -> HubWorld:
    """Llamas of which `q_proj` and `v_proj` are an eighth."""
    world = HubWorld(root)
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(world.base, max_shard_size=SHARD_SIZE)
    perturb(model, 0.1)
    model.save_pretrained(world.chat, max_shard_size=SHARD_SIZE)
    save_adapter(model, world.adapter, "llama", target_modules=["q_proj", "v_proj"])
    return world


def publish(hub: LocalHub, world: HubWorld) -> dict[str, str]:
    """Put all three on the hub; their commits by name."""
    made = {BASE: world.base, CHAT: world.chat, ADAPTER: world.adapter}
    return {name: put(hub, name, folder) for name, folder in made.items()}


def put(hub: LocalHub, name: str, folder: Path) -> str:
    hub.create(name)
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    return hub.commit(name, files)


def shorten_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """To a hundredth of what the product waits between two attempts."""
    monkeypatch.setattr(ranges, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(ranges, "LONGEST_PAUSE_S", 0.3)
