"""SaLoRA in an existing training script, on stock PEFT (arXiv 2501.01765).

    model = AutoModelForCausalLM.from_pretrained(chat)
    model = PeftModel.from_pretrained(model, "kit", is_trainable=True)
    attach(model, "kit")
    ...  # train as before, save with model.save_pretrained
    # then: adapter-safety salora export --kit kit --adapter trained --out exported

`attach` makes each of the kit's modules compute `W x + s C (B A - B0 A0) x`, with
`C = I - V_s V_s^T`: nothing that is learnt moves the output along `V_s`. `W` is not touched, so the
base may be quantised. It is a variant of PEFT's LoRA layer (as DoRA is), so that merging, several
adapters, disabled adapters, autocast and gradient checkpointing are PEFT's own paths.

What is saved while it is attached is `A` and `B` alone, and beside them the kit, because without it
they mean nothing: stock PEFT would compute `W x + s B A x`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import LoraVariant
from torch import Tensor, nn
from torch.nn.functional import linear

from app.alignment.activations import weight_of
from app.alignment.kit import Kit, KitModule, probe

ADAPTER_CONFIG = "adapter_config.json"
MARK = "salora_kit"  # in a saved adapter_config.json: no ordinary LoRA, and refused as such
SAME = 1e-4  # relative: the same weights, whoever computes the probe
SAME_ROUNDED = 4e-3  # the same weights rounded to 16 bits: bfloat16 is off by 1.7e-3


class KitDoesNotFit(ValueError):
    """The model is not the one that the kit was made for, or its adapter is another."""


@dataclass(frozen=True)
class Placed:
    """What is fixed of one module, where it is needed."""

    safety: Tensor  # V_s (d_out, r_s) float32
    a0: Tensor | None  # (r, d_in)
    b0: Tensor | None  # (d_out, r)


@dataclass
class SaloraVariant(LoraVariant):
    """One module's forward pass: `result + s C (B A - B0 A0) x`."""

    kit: KitModule
    _placed: dict[tuple[torch.device, torch.dtype], Placed] = field(default_factory=dict)

    def forward(  # type: ignore[override] # because PEFT calls these on the instance
        self, module: LoraLayer, active_adapter: str, x: Tensor, result: Tensor, **_: Any
    ) -> Tensor:
        """`x` `(..., d_in)`, `result` `(..., d_out)` of the base layer; the sum of both.

        Start and adapter go the same way in the same dtype, so that they cancel exactly until one
        is trained.
        """
        a, b = module.lora_A[active_adapter], module.lora_B[active_adapter]
        update = b(a(module.lora_dropout[active_adapter](x)))
        at = self._at(_weight(a))
        if at.a0 is not None and at.b0 is not None:
            update = update - linear(linear(x, at.a0), at.b0)
        whole: Tensor = result + _projected(update, at.safety) * module.scaling[active_adapter]
        return whole

    def delta(self, module: LoraLayer, adapter: str) -> Tensor:
        """`s C (B A - B0 A0)`, `(d_out, d_in)` float32."""
        start = self.kit.start
        update = _weight(module.lora_B[adapter]).float() @ _weight(module.lora_A[adapter]).float()
        if start:
            update = update - (start.b @ start.a).to(update.device)
        safety = self.kit.safety.to(update.device)
        return (update - safety @ (safety.T @ update)) * float(module.scaling[adapter])

    def merge_safe(self, module: LoraLayer, active_adapter: str, orig_weight: Tensor) -> Tensor:  # type: ignore[override] # as above
        return orig_weight + self._stored(module, active_adapter, orig_weight)

    def merge_unsafe(self, module: LoraLayer, active_adapter: str, orig_weight: Tensor) -> None:  # type: ignore[override] # as above
        orig_weight.data += self._stored(module, active_adapter, orig_weight)

    def unmerge(self, module: LoraLayer, active_adapter: str, orig_weight: Tensor) -> Tensor:  # type: ignore[override] # as above
        return orig_weight - self._stored(module, active_adapter, orig_weight)

    def supports_lora_conversion(self) -> bool:
        return False  # because exporting is exact, and PEFT's conversion is not

    def _stored(self, module: LoraLayer, adapter: str, weight: Tensor) -> Tensor:
        """The update as the base layer has its weight: GPT-2's is transposed."""
        delta = self.delta(module, adapter)
        transposed = bool(getattr(module, "fan_in_fan_out", False))
        return (delta.T if transposed else delta).to(weight.dtype)

    def _at(self, like: Tensor) -> Placed:
        """On the adapter's device, `A0` and `B0` in its dtype."""
        key = (like.device, like.dtype)
        if key not in self._placed:
            start, safety = self.kit.start, self.kit.safety.to(like.device)
            a0, b0 = (start.a.to(*key), start.b.to(*key)) if start else (None, None)
            self._placed[key] = Placed(safety, a0, b0)
        return self._placed[key]


def _weight(module: nn.Module) -> Tensor:
    weight: Tensor = module.get_parameter("weight")
    return weight


def _projected(update: Tensor, safety: Tensor) -> Tensor:
    """`C update` in float32, whatever autocast says: in 16 bits `C` would be no projection."""
    with torch.autocast(update.device.type, enabled=False):
        wide = update.float()
        return wide - (wide @ safety) @ safety.T


def attach(model: PeftModel, kit: Kit | Path | str, adapter_name: str = "default") -> None:
    """Make the adapter train as SaLoRA. Attached again, with whatever kit, the last one counts.

    Raises KitDoesNotFit where a module, a rank, a scaling or the model's weights are not those of
    the kit, or the adapter is an untrained one of PEFT's own; nothing is changed then. The weights
    of a quantised base cannot be compared.
    """
    found = kit if isinstance(kit, Kit) else Kit.load(Path(kit))
    layers = dict(_layers(model, adapter_name))
    _check_names(found, layers)
    for name, layer in layers.items():
        _check_layer(name, layer, adapter_name, found)
    _check_started(found, layers, adapter_name)
    for name, layer in layers.items():
        layer.lora_variant[adapter_name] = SaloraVariant(found.modules[name])
    before = model.__dict__.get("save_pretrained")
    kits = before.kits if isinstance(before, SavesWithKits) else {}
    model.save_pretrained = SavesWithKits(model, {**kits, adapter_name: found})  # type: ignore[method-assign, assignment] # until detached


def detach(model: PeftModel, adapter_name: str = "default") -> None:
    """Back to what PEFT alone computes of the same `A` and `B`, which is another model: see the
    module's text."""
    for _, layer in _layers(model, adapter_name):
        if isinstance(layer.lora_variant.get(adapter_name), SaloraVariant):
            del layer.lora_variant[adapter_name]
    saves = model.__dict__.get("save_pretrained")
    if isinstance(saves, SavesWithKits):
        saves.kits.pop(adapter_name, None)
        if not saves.kits:
            del model.__dict__["save_pretrained"]


def _layers(model: PeftModel, adapter: str) -> Iterator[tuple[str, LoraLayer]]:
    """The adapter's layers by the full names of their modules in the model itself."""
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer) and adapter in module.r:
            yield name, module


def _check_names(kit: Kit, layers: dict[str, LoraLayer]) -> None:
    lacking = sorted(kit.modules.keys() - layers.keys())
    beyond = sorted(layers.keys() - kit.modules.keys())
    if lacking or beyond:
        raise KitDoesNotFit(f"the model's adapter lacks {lacking[:5]} and has {beyond[:5]} more")


def _check_started(kit: Kit, layers: dict[str, LoraLayer], adapter: str) -> None:
    """`B` is the kit's or a trained one. PEFT's own is zero: with `B0` taken away the model would
    be another from the first step on."""
    zero = [layer for layer in layers.values() if not _weight(layer.lora_B[adapter]).any()]
    if len(zero) == len(layers) and any(m.start and m.start.b.any() for m in kit.modules.values()):
        reason = "its B is zero everywhere, so it does not start where the kit does: load the kit"
        raise KitDoesNotFit(f"{reason} with PeftModel.from_pretrained in place of get_peft_model")


def _check_layer(name: str, layer: LoraLayer, adapter: str, kit: Kit) -> None:
    module, scaling = kit.modules[name], float(kit.config["scaling"])
    rank = kit.config["ranks"][name]
    if layer.lora_variant.get(adapter) and not isinstance(
        layer.lora_variant[adapter], SaloraVariant
    ):
        raise KitDoesNotFit(f"{name} is of another LoRA variant already")
    if layer.lora_bias[adapter]:
        raise KitDoesNotFit(f"{name} has a lora_bias, which nothing would hold")
    if layer.r[adapter] != rank or abs(layer.scaling[adapter] - scaling) > 1e-9 * abs(scaling):
        raise KitDoesNotFit(
            f"{name} has rank {layer.r[adapter]} and scaling {layer.scaling[adapter]:g}, the kit "
            f"{rank} and {scaling:g}"
        )
    _check_weight(name, layer.get_base_layer(), module, kit.config.get("weights"))


def _check_weight(name: str, base: nn.Module, module: KitModule, made_in: str | None) -> None:
    """`made_in`: the dtype of the weights that the kit was made of."""
    try:
        weight = weight_of(base)
    except TypeError:  # quantised
        return
    if weight.shape[0] != module.safety.shape[0]:
        raise KitDoesNotFit(f"{name} has {weight.shape[0]} rows, the kit {module.safety.shape[0]}")
    if module.start and weight.shape[1] != module.start.a.shape[1]:
        raise KitDoesNotFit(f"{name} has not the {module.start.a.shape[1]} columns of the kit")
    found, known = probe(weight).double(), module.probe.double()
    is_as_made = weight.dtype.itemsize > 2 or str(weight.dtype) == made_in
    allowed = SAME if is_as_made else SAME_ROUNDED
    if not (found - known).norm() <= allowed * known.norm():  # NaN is not
        raise KitDoesNotFit(f"{name}: the model's weight is not the one that the kit was made for")


@dataclass
class SavesWithKits:
    """An attached model's `save_pretrained`: each adapter's kit beside it, and its configuration
    marked. No function, so that a copy of the model, or one out of a pickle, saves its own."""

    model: PeftModel
    kits: dict[str, Kit]  # by adapter

    def __call__(
        self,
        save_directory: str,
        safe_serialization: bool = True,
        selected_adapters: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        said = (save_directory, safe_serialization, selected_adapters)
        type(self.model).save_pretrained(self.model, *said, **kwargs)
        if not kwargs.get("is_main_process", True):
            return
        for adapter in set(self.kits).intersection(selected_adapters or self.kits):
            if _is_attached(self.model, adapter):
                # where PEFT puts an adapter of that name
                folder = Path(save_directory) / ("" if adapter == "default" else adapter)
                _mark(folder / ADAPTER_CONFIG, self.kits[adapter])


def _is_attached(model: PeftModel, adapter: str) -> bool:
    """Not where the adapter was deleted, or made anew under its name."""
    layers = _layers(model, adapter)
    return any(isinstance(layer.lora_variant.get(adapter), SaloraVariant) for _, layer in layers)


def _mark(config: Path, kit: Kit) -> None:
    known = json.loads(config.read_bytes())
    text = json.dumps({**known, MARK: kit.config["id"]}, indent=2, sort_keys=True)
    config.write_bytes(text.encode())
    kit.save(config.parent)
