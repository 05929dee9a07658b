"""What a patched adapter should make of a model, from the model's own modules and the formulas."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from app.domain.adapter import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    AdapterManifest,
    StoredModule,
    TensorEntry,
)
from app.domain.architecture import (
    expert_of,
)
from app.domain.checkpoint import Checkpoint
from app.domain.method import Method, Selection
from app.domain.report import Report
from app.intake.checkpoint import read_checkpoint
from app.intake.manifest import read_manifest
from app.intake.preflight import check_fit
from tests.alignment import reference
from tests.factory import World
from tests.workers.breadth_changes import load
from workers.output import write_patched_adapter
from workers.pipeline import NamedCheckpoint, PatchInput

METHOD = Method("approximate", select=Selection("fraction", 0.5))
COSINE_TOLERANCE = 1e-6
B_TOLERANCE = 1e-5  # relative
WEIGHT_TOLERANCE = 2e-6  # absolute, because PEFT merges in float32
LOGIT_TOLERANCE = 1e-4  # of the largest logit, because float32 sums go through all layers
TOKENS = torch.arange(8)[None]


def checkpoint(folder: Path) -> Checkpoint:
    return read_checkpoint(folder, field="model", model="org/model")


def stored(manifest: AdapterManifest) -> list[StoredModule]:
    return [StoredModule.of(module) for module in manifest.modules]


def patched(world: World, out: Path, method: Method = METHOD) -> Report:
    """Through every gate that a job goes through."""
    manifest = read_manifest(world.adapter)
    base, chat = checkpoint(world.base), checkpoint(world.chat)
    check_fit(stored(manifest), base, chat, "org/base", "org/chat")
    models = (NamedCheckpoint("org/base", base), NamedCheckpoint("org/chat", chat))
    out.mkdir()
    return write_patched_adapter(
        PatchInput(world.adapter, manifest, *models, method),
        out,
        threads=1,
        on_module=lambda _: None,
    )


def untie(model: PreTrainedModel) -> PreTrainedModel:
    """As PEFT advises before merging into a tied head: it would change the embedding as well."""
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False
        model.config.get_text_config().tie_word_embeddings = False
    return model


def theirs(name: str, model: PreTrainedModel) -> str:
    """The module in a model of transformers 5 that an older adapter's name means."""
    new = name.replace("language_model.model.", "model.language_model.", 1)
    return name if name in dict(model.named_modules()) else new


def dense(model: PreTrainedModel, name: str) -> Tensor:
    """The module's weight as `(d_out, d_in)` float64."""
    if expert := expert_of(name):
        return model.get_parameter(expert.parameter)[expert.number].detach().double()
    module = model.get_submodule(theirs(name, model))
    weight = module.weight.detach().double()
    return weight.T if isinstance(module, Conv1D | nn.Embedding) else weight


def own(tensors: Mapping[str, Tensor], entry: TensorEntry) -> Tensor:
    """A module's factor; an expert's by the reshapes that PEFT makes."""
    whole, part = tensors[entry.name], entry.part
    if part is None:
        return whole
    if part.axis == 0:
        return whole.reshape(part.count, -1, whole.shape[1])[part.index]
    return whole.reshape(whole.shape[0], -1, part.count)[:, :, part.index]


def set_by_hand(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    with torch.no_grad():
        for name, weight in weights.items():
            if expert := expert_of(name):
                model.get_parameter(expert.parameter)[expert.number].copy_(weight)
                continue
            module = model.get_submodule(theirs(name, model))
            is_transposed = isinstance(module, Conv1D | nn.Embedding)
            module.weight.copy_(weight.T if is_transposed else weight)
    return model


def add_parameters(model: PreTrainedModel, values: Mapping[str, Tensor]) -> PreTrainedModel:
    """Add to the model's own parameters, by name; a bias that it lacks is made."""
    with torch.no_grad():
        for name, value in values.items():
            module = model.get_submodule(name.rpartition(".")[0])
            parameter = getattr(module, name.rpartition(".")[2])
            if parameter is None:
                module.bias = nn.Parameter(value.float())
            else:
                parameter += value
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits.double()


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= LOGIT_TOLERANCE * expected.abs().max())


def shared(w_chat: Tensor, w_base: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns that both have, of `(d_out, d_in)` weights."""
    rows, columns = (min(sizes) for sizes in zip(w_chat.shape, w_base.shape, strict=True))
    return w_chat[:rows, :columns], w_base[:rows, :columns]


def projector_of(w_chat: Tensor, w_base: Tensor, method: Method) -> Tensor:
    """`C` `(d_out, d_out)` for the chat model's outputs; zero for those that the base lacks."""
    c = torch.zeros(len(w_chat), len(w_chat), dtype=torch.float64)
    inner = reference.projector(*shared(w_chat, w_base), method)
    c[: len(inner), : len(inner)] = inner
    return c


@dataclass
class Expected:
    """The model that the returned adapter should make of the chat model."""

    weights: dict[str, Tensor] = field(default_factory=dict)  # by module, (d_out, d_in) float64
    added: dict[str, Tensor] = field(default_factory=dict)  # by parameter


def expected(world: World, report: Report, out: Path, method: Method = METHOD) -> Expected:
    """`W + s C B A` where projected, else `W + s B A`; each cosine and B is checked on the way."""
    before, after = load_file(world.adapter / WEIGHTS_FILE), load_file(out / WEIGHTS_FILE)
    base, chat = load(world, world.base), untie(load(world, world.chat))
    manifest = read_manifest(world.adapter)
    modules = {module.name: module for module in manifest.modules}
    layers = [layer for layer in report.layers if layer.rank is not None]
    assert list(modules) == [layer.module for layer in layers]
    found, cosines = Expected(), []
    apply_full_weights(chat, out)
    for layer in layers:
        module = modules[layer.module]
        a, b = own(before, module.lora_a), own(before, module.lora_b)
        w_chat, w_base = dense(load(world, world.chat), module.name), dense(base, module.name)
        c = projector_of(w_chat, w_base, method)
        cosines.append(reference.cosine(c, a, b))
        assert layer.cosine == pytest.approx(cosines[-1], abs=COSINE_TOLERANCE)
        change = c if layer.decision == "projected" else torch.eye(len(c), dtype=torch.float64)
        final = change @ b.double()
        error = torch.linalg.norm(own(after, module.lora_b).double() - final)
        assert error <= B_TOLERANCE * torch.linalg.norm(final)
        if layer.decision == "kept":
            assert torch.equal(own(after, module.lora_b), b)
        assert torch.equal(own(after, module.lora_a), a)
        weight = dense(chat, module.name) + module.scaling * final @ a.double()
        if module.magnitude:
            m = before[module.magnitude.name].double()
            if layer.decision == "projected":
                m = torch.linalg.norm(w_chat, dim=1)
            weight = weight * (m / torch.linalg.norm(weight, dim=1))[:, None]
        if module.bias:
            bias = change @ before[module.bias.name].double()
            found.added[f"{module.name}.bias"] = module.scaling * bias
        found.weights[module.name] = weight
    scored = [layer for layer in report.layers if layer.decision != "skipped"]
    cosines += [layer.cosine for layer in scored if layer.rank is None]
    picked = {i for i, layer in enumerate(scored) if layer.decision == "projected"}
    assert picked == reference.selected(cosines, method.select)
    return found


def apply_full_weights(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Put an adapter's full weights into the model, by hand."""
    tensors, said = (
        load_file(adapter / WEIGHTS_FILE),
        json.loads((adapter / CONFIG_FILE).read_text()),
    )
    for weight in read_manifest(adapter).full_weights:
        value, parameter = tensors[weight.entry.name], model.get_parameter(weight.name)
        tokens = said["trainable_token_indices"]
        with torch.no_grad():
            if weight.feature != "trainable_token_indices":
                parameter.copy_(value)
            else:
                layer = weight.name.split(".")[-2]
                rows = tokens if isinstance(tokens, list) else tokens[layer]
                parameter[rows] = value
    return model
