"""Adapters on one model in memory: from validated files' own tensors, by stock PEFT.

`PeftModel.from_pretrained` is never given a stranger's folder: it imports modules by names in the
configuration. What PEFT gets here is the configuration as the gate wrote it back, and tensors.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE, AdapterManifest, LoraModule
from app.domain.errors import UnsupportedAdapter
from workers.checkpoints import finite, part_of
from workers.measure.worn_config import module_names, worn_config

logger = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]
PREFIX = "base_model.model."
BASE = ".base_layer.weight"
NAMES = ("base_model_name_or_path", "revision")  # nothing that is built depends on them
# PEFT's adapter name, which some files have in their keys; a magnitude's key ends without .weight
NAMED = re.compile(r"(?<=vector)\.default\.weight$|\.default(?=(\.weight|\.bias)?$)")


@dataclass(frozen=True)
class LoadedAdapter:
    """A validated adapter's configuration and tensors, on the CPU."""

    manifest: AdapterManifest
    tensors: Tensors  # by their names in the file

    @classmethod
    def read(cls, folder: Path, manifest: AdapterManifest) -> "LoadedAdapter":
        """Of a folder with the manifest's files. Raises NonFiniteTensor."""
        tensors = load_file(folder / WEIGHTS_FILE)
        for name, tensor in tensors.items():
            finite(tensor, name, "adapter")
        return cls(manifest, tensors)

    def mixed(self, patched: Tensors, modules: Iterable[LoraModule]) -> Tensors:
        """The adapter's tensors with what `patched` has of the given modules."""
        mixed = dict(self.tensors)
        for module in modules:
            for entry in (module.lora_b, module.bias, module.magnitude):
                if entry is None:
                    continue
                if mixed[entry.name] is self.tensors[entry.name]:
                    mixed[entry.name] = self.tensors[entry.name].clone()
                theirs = part_of(patched[entry.name], entry.part)
                part_of(mixed[entry.name], entry.part).copy_(theirs)
        return mixed


@dataclass(frozen=True)
class Lent:
    """A parameter of the model's own for which an adapter brings another: PEFT would write over
    the model's."""

    places: Sequence[tuple[nn.Module, str]]  # more than one where it is tied
    own: nn.Parameter
    theirs: nn.Parameter

    @classmethod
    def of(cls, model: nn.Module, own: nn.Parameter) -> "Lent":
        found = ((m, name, p) for m in model.modules() for name, p in m._parameters.items())
        places = [(module, name) for module, name, parameter in found if parameter is own]
        return cls(places, own, nn.Parameter(own.detach().clone(), requires_grad=False))

    def put(self, parameter: nn.Parameter) -> None:
        for module, name in self.places:
            setattr(module, name, parameter)


@dataclass(frozen=True)
class Cut:
    """What of an adapter PEFT's modules depend on: two of one cut differ in values alone."""

    config: Mapping[str, object]
    tensors: Mapping[str, tuple[torch.Size, torch.dtype]]

    @classmethod
    def of(cls, config: LoraConfig, tensors: Tensors) -> "Cut":
        """A copy, because PEFT writes into the configuration that it is given."""
        fields = {
            name: deepcopy(value) for name, value in vars(config).items() if name not in NAMES
        }
        return cls(fields, {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()})


@dataclass
class Switch:
    """One model that wears one adapter at a time, or none. Its own modules are never changed:
    PEFT's are put around them, and taken off again, or given other values where the next adapter
    is of the same cut."""

    model: PreTrainedModel
    _worn: PeftModel | None = None
    _cut: Cut | None = None
    _lent: list[Lent] = field(default_factory=list)

    @cached_property
    def _own(self) -> Mapping[str, nn.Module]:
        return dict(self.model.named_modules())

    def wear(self, adapter: LoadedAdapter | None) -> None:
        """In place of what is worn. Raises UnsupportedAdapter where PEFT cannot put it on; the
        model is itself then."""
        if adapter is None:
            self._take_off()
            return
        try:
            self._change_to(adapter)
        except BaseException:
            self._take_off()
            raise

    def _change_to(self, adapter: LoadedAdapter) -> None:
        config = worn_config(adapter.manifest, self.model)
        cut = Cut.of(config, adapter.tensors)
        if cut != self._cut:
            self._take_off()
            self._put_on(adapter, config)
        self.write(adapter.tensors)
        self._cut = cut

    def _put_on(self, adapter: LoadedAdapter, config: LoraConfig) -> None:
        self._worn = self._around(adapter.manifest, config)
        self._worn.requires_grad_(False)
        self._lend(adapter.tensors)
        self._worn.eval()

    def _around(self, manifest: AdapterManifest, config: LoraConfig) -> PeftModel:
        try:
            return PeftModel(self.model, config)
        except ValueError as error:
            logger.warning("PEFT, of the adapter %s: %s", manifest.id, error)
            raise UnsupportedAdapter(
                feature="a configuration that PEFT cannot put on this model",
                where=CONFIG_FILE,
                hint="check that PeftModel.from_pretrained loads it on the chat model",
            ) from error

    def _lend(self, tensors: Tensors) -> None:
        names = module_names(self.model)
        for name in filter(None, map(_beside_lora, tensors)):
            lent = Lent.of(self.model, self._own[names.get(name, name)].get_parameter("weight"))
            lent.put(lent.theirs)
            self._lent.append(lent)

    def write(self, tensors: Tensors) -> None:
        """Give the worn adapter other values. Raises UnsupportedAdapter where one has no place."""
        if self._worn is None:
            raise ValueError("no adapter is worn")
        named = {NAMED.sub("", key): tensor for key, tensor in tensors.items()}
        found: Any = set_peft_model_state_dict(self._worn, named)
        lacking = [key for key in found.missing_keys if "lora_" in key]
        for key in [*found.unexpected_keys, *lacking]:
            raise UnsupportedAdapter(
                feature="a tensor that PEFT has no place for on this model",
                where=f"{WEIGHTS_FILE}, {key}",
                hint="save it again with PEFT's model.save_pretrained(folder)",
            )

    @contextmanager
    def bare(self) -> Iterator[None]:
        """The chat model itself, whatever is worn."""
        if self._worn is None:
            yield
            return
        with self._worn.disable_adapter(), self._given_back():
            yield

    @contextmanager
    def _given_back(self) -> Iterator[None]:
        for lent in self._lent:
            lent.put(lent.own)
        try:
            yield
        finally:
            for lent in self._lent:
                lent.put(lent.theirs)

    def _take_off(self) -> None:
        """PEFT's `unload` would leave the adapter's own copies of `modules_to_save` behind."""
        own = self._own
        for lent in self._lent:
            lent.put(lent.own)
        self._lent.clear()
        for name, module in own.items():
            parent, _, leaf = name.rpartition(".")
            if name and own[parent]._modules.get(leaf) is not module:
                own[parent]._modules[leaf] = module
        self.model.__dict__.pop("peft_config", None)
        self._worn = self._cut = None


def _beside_lora(key: str) -> str | None:
    """The module whose whole weight stands beside the LoRA on it, as PEFT saves embeddings."""
    return key.removeprefix(PREFIX).removesuffix(BASE) if key.endswith(BASE) else None


def tensors_of(folder: Path) -> Tensors:
    """Of a folder that this process has written."""
    return load_file(folder / WEIGHTS_FILE)
