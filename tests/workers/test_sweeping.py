"""A sweep through a real model: what goes through it, what it holds, and what it does where memory
is too small."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from app.alignment.activations import Sweep
from app.alignment.moments import SecondMoment, Sketch
from app.domain.salora_errors import OutOfMemory
from tests.alignment.test_leading import angle
from workers.encoding import Encoded, EncodedSet, stack
from workers.language_models import find_targets
from workers.sweeping import forward, sweep

QKV = ["q_proj", "k_proj", "v_proj"]
LINEAR = [*QKV, "o_proj", "gate_proj", "up_proj", "down_proj"]
VOCABULARY, RANK, BUDGET_BYTES = 64, 4, 1 << 30


def llama(hidden: int = 48, layers: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
    )
    model = LlamaForCausalLM(config)
    model.requires_grad_(False)
    return model.eval()


def data(*lengths: int) -> EncodedSet:
    """Random tokens, the second half of each row its response."""
    generator = torch.Generator().manual_seed(8)
    rows = []
    for line, length in enumerate(lengths, 1):
        ids = torch.randint(VOCABULARY, (length,), generator=generator).tolist()
        rows.append(Encoded(line, ids, [i >= length // 2 for i in range(length)]))
    return EncodedSet(rows, template=False, shortened=0)


def told(*_: object) -> None:
    """Nobody listens."""


def watched(model: nn.Module, look: Callable[[torch.Tensor], None]) -> None:
    """Every forward pass shows its token ids `(rows, tokens)`."""

    def hook(_: nn.Module, args: Any, given: dict[str, Any]) -> None:
        look(given["input_ids"])

    model.base_model.register_forward_pre_hook(hook, with_kwargs=True)


def short_of_memory(model: LlamaForCausalLM, most_tokens: int) -> list[int]:
    """The second layer refuses larger batches, after the first one's inputs were counted. What it
    was given: the tokens of each batch, padding included."""
    given = []

    def hook(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        tokens = args[0].shape[0] * args[0].shape[1]
        given.append(tokens)
        if tokens > most_tokens:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model.model.layers[1].register_forward_pre_hook(hook)
    return given


def seen_by(model: LlamaForCausalLM, names: list[str], rows: EncodedSet, budget: int) -> Sweep:
    seen = Sweep(find_targets(model, names), RANK, budget)
    for row in rows.rows:
        forward(model, stack([row], 0), seen)
    return seen


def moments(seen: Sweep) -> list[object]:
    """Each once, however many modules share it."""
    return list({id(i.moment): i.moment for i in seen._inputs.values()}.values())


# ---------------------------------------------------------------------------------- forward passes
def test_each_row_goes_through_the_model_exactly_once_for_all_modules() -> None:
    model, rows, passes = llama(), data(*[9] * 10), []
    watched(model, passes.append)
    swept = sweep(model, find_targets(model, LINEAR), rows, RANK, told, batch_tokens=27)
    assert len(swept.subspaces) == 2 * len(LINEAR)
    assert [tuple(ids.shape) for ids in passes] == [(3, 9), (3, 9), (3, 9), (1, 9)]
    went = sorted(ids.tolist() for batch in passes for ids in batch)
    assert went == sorted(row.ids for row in rows.rows)


def test_only_response_tokens_count() -> None:
    model, rows = llama(), data(9, 14, 6, 21)
    swept = sweep(model, find_targets(model, LINEAR), rows, RANK, told, batch_tokens=50)
    assert {found.rows for found in swept.subspaces.values()} == {rows.response_tokens}


def test_batches_of_any_size_give_the_same_subspaces() -> None:
    model, rows = llama(), data(*range(5, 45))
    targets = find_targets(model, LINEAR)
    one, many = (sweep(model, targets, rows, RANK, told, batch_tokens=n) for n in (1, 4096))
    for name in targets:
        # 1e-4: float32 forward passes of other shapes and paddings round otherwise
        assert angle(one.subspaces[name].basis, many.subspaces[name].basis) < 1e-4


def test_an_outputs_subspace_is_that_of_all_outputs_kept() -> None:
    model, rows = llama(), data(*range(5, 45))
    targets, inputs = find_targets(model, LINEAR), {}
    swept = sweep(model, targets, rows, RANK, told)
    for name, module in targets.items():
        module.register_forward_pre_hook(
            lambda _, args, name=name: inputs.setdefault(name, []).append(args[0][0])
        )
    for row in rows.rows:
        model(input_ids=torch.tensor([row.ids]))
    for name, module in targets.items():
        kept = [x[row.is_response] for x, row in zip(inputs[name], rows.rows, strict=True)]
        y = torch.cat(kept).double() @ module.weight.double().T
        right = torch.linalg.svd(y, full_matrices=False).Vh[:RANK].T
        assert angle(swept.subspaces[name].basis, right) < 1e-4


# ------------------------------------------------------------------------------------------ memory
def test_modules_that_read_the_same_input_share_one_moment() -> None:
    seen = seen_by(llama(), LINEAR, data(9, 9), BUDGET_BYTES)
    # of a layer: that of q, k and v, of o, of gate and up, of down
    assert len(moments(seen)) == 2 * 4
    owners = {name: i.owner for name, i in seen._inputs.items()}
    assert owners["model.layers.1.self_attn.v_proj"] == "model.layers.1.self_attn.q_proj"
    assert owners["model.layers.1.mlp.up_proj"] == "model.layers.1.mlp.gate_proj"


def test_no_input_is_kept_while_the_forward_pass_goes_on() -> None:
    """All modules' inputs together are as much as a training's activations."""
    model, alive = llama(layers=4), []
    seen = Sweep(find_targets(model, LINEAR), RANK, BUDGET_BYTES)
    model.model.norm.register_forward_pre_hook(
        lambda *_: alive.extend(i for i in seen._inputs.values() if i.last and i.last() is not None)
    )
    forward(model, stack(data(9, 9).rows, 0), seen)
    assert len(seen._inputs) == 4 * len(LINEAR)
    assert not alive


def test_what_is_held_does_not_grow_with_the_rows() -> None:
    def held(rows: int) -> int:
        found = moments(seen_by(llama(), LINEAR, data(*[9] * rows), BUDGET_BYTES))
        return sum(moment._total.nbytes for moment in found)

    assert held(2) == held(40)


def test_the_process_needs_no_more_memory_for_more_rows() -> None:
    command = [sys.executable, "-m", "tests.workers.sweep_peak"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    few, many, inputs = map(int, found.split())
    # the inputs of the larger sweep alone would be `inputs`; the margin is the allocator's
    assert many - few < inputs / 4


def test_a_budget_that_is_too_small_makes_sketches_and_names_them() -> None:
    """Exact ones as long as there is room: one layer's, here."""
    model = llama(hidden=1024, layers=2)
    room = 8 * 1024 * 1024
    targets = find_targets(model, ["q_proj"])
    seen = seen_by(model, ["q_proj"], data(20), room)
    assert [type(i.moment) for i in seen._inputs.values()] == [SecondMoment, Sketch]
    swept = sweep(model, targets, data(20), RANK, told, budget_bytes=room)
    exact = sweep(model, targets, data(20), RANK, told, budget_bytes=2 * room)
    assert swept.sketched == {"model.layers.1.self_attn.q_proj"}
    assert not exact.sketched
    for name, found in swept.subspaces.items():
        # 10 outputs of 256 columns: a sketch is exact where Y has fewer directions than it
        assert angle(found.basis, exact.subspaces[name].basis) < 1e-4


# ----------------------------------------------------------------------------------- out of memory
def test_where_memory_is_too_small_batches_are_halved_and_nothing_counts_twice() -> None:
    model, rows = llama(), data(*[10] * 16)
    targets = find_targets(model, LINEAR)
    wanted = sweep(model, targets, rows, RANK, told, batch_tokens=40)
    given = short_of_memory(model, 40)
    found = sweep(model, targets, rows, RANK, told, batch_tokens=4096)
    assert given == [160, 80, 40, 40, 40, 40]
    assert found.warnings == [
        f"Memory was too small: batches of {tokens} tokens were used." for tokens in (80, 40)
    ]
    assert not wanted.warnings
    for name, subspace in wanted.subspaces.items():
        assert found.subspaces[name].rows == subspace.rows == rows.response_tokens
        assert torch.equal(found.subspaces[name].basis, subspace.basis)


def test_one_row_that_does_not_fit_fails_and_says_how_large_it_is() -> None:
    model = llama()
    short_of_memory(model, 15)
    with pytest.raises(OutOfMemory) as caught:
        sweep(model, find_targets(model, QKV), data(10, 30, 10), RANK, told)
    assert "one row of 30 tokens" in str(caught.value)
    assert f"{model.num_parameters()} parameters" in str(caught.value)
    assert "cpu" in str(caught.value)


def test_another_error_of_the_model_is_not_taken_for_a_lack_of_memory() -> None:
    model, passes = llama(), []

    def broken(ids: torch.Tensor) -> None:
        passes.append(ids)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    watched(model, broken)
    with pytest.raises(RuntimeError, match="shapes"):
        sweep(model, find_targets(model, QKV), data(10, 10), RANK, told)
    assert len(passes) == 1
