"""What tests ask of a model with SaLoRA attached."""

from collections.abc import Iterator

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from tests.workers.salora_world import SaloraWorld

GUARANTEE = 1e-5  # of ||V_s^T dW|| / ||dW||: float32's rounding of V_s
FLOAT32 = 1e-5  # of logits


def tokens(rows: int = 3) -> Tensor:
    return torch.randint(8, 50, (rows, 12), generator=torch.Generator().manual_seed(1))


def logits(model: torch.nn.Module, ids: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=tokens() if ids is None else ids).logits.float()
    return found


def layers(model: PeftModel) -> Iterator[tuple[str, LoraLayer]]:
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def moved(model: PeftModel) -> list[float]:
    """`||V_s^T dW|| / ||dW||` of each layer, from what its forward pass does to all unit inputs."""
    shares = []
    for _, layer in layers(model):
        variant = layer.lora_variant["default"]
        eye = torch.eye(layer.in_features)
        with torch.no_grad():
            update = (layer(eye) - layer.get_base_layer()(eye)).T.double()
        inside = variant.kit.safety.double().T @ update
        whole = torch.linalg.norm(update)
        shares.append(float(torch.linalg.norm(inside) / whole) if whole else 0.0)
    return shares


def steps(model: PeftModel, count: int = 5, lr: float = 0.05) -> Iterator[float]:
    """Real steps of AdamW on random tokens; the loss before each."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr)
    for _ in range(count):
        loss = model(input_ids=tokens(), labels=tokens()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


def offline(model: PeftModel, world: SaloraWorld) -> PeftModel:
    """PEFT asks for the base model's configuration by this name when it saves."""
    model.peft_config["default"].base_model_name_or_path = str(world.chat.checkpoint.folder)
    return model
