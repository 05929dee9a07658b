"""How likely a model finds answers, against the same computed densely by hand."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from app.domain.salora_errors import OutOfMemory
from app.intake.manifest import read_manifest
from tests.factory import save_adapter
from tests.workers.measure.made import LETTERS, made, prompts, short_of_memory
from workers.measure.likelihood import Followed, Likelihood, Reader
from workers.measure.switch import LoadedAdapter, Switch

ARCHITECTURES = ["llama", "qwen2", "gpt2", "opt", "gemma2", "gemma3_text"]
SHAPES = ((3, 4), (17, 2), (5, 9), (5, 1), (11, 6), (1, 3))  # prompt, answer
CONTEXT = 32
CLOSE = 1e-5  # nats: the models run in float32
TARGETS = {"gpt2": ["c_attn"]}


class Worn:
    """A model with an adapter beside it, and both computed by hand."""

    def __init__(self, folder: Path, architecture: str) -> None:
        self.model, _ = made(folder / "chat", architecture)
        self.switch = Switch(self.model)
        adapter = folder / "adapter"
        targets = TARGETS.get(architecture, ["q_proj", "v_proj"])
        save_adapter(self.model, adapter, architecture, target_modules=targets, lora_alpha=200)
        self.model.requires_grad_(False)
        for path in adapter.glob("*.md"):
            path.unlink()
        self.adapter = LoadedAdapter.read(adapter, read_manifest(adapter))

    def logs(self, model: PreTrainedModel, row: Followed) -> Tensor:
        """`(answer's tokens, vocabulary)` float64, of one row alone in float64."""
        ids = torch.tensor([[*row.prompt.ids, *row.ids]])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0].double()
        return logits.log_softmax(1)[len(row.prompt) - 1 : -1]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def worn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Worn:
    return Worn(tmp_path_factory.mktemp("worn"), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Worn:
    return Worn(tmp_path_factory.mktemp("llama"), "llama")


def rows(shapes: Sequence[tuple[int, int]] = SHAPES) -> list[Followed]:
    given = prompts(*[prompt for prompt, _ in shapes])
    answers = prompts(*[answer for _, answer in shapes], seed=9)
    return [Followed(one, other.ids) for one, other in zip(given, answers, strict=True)]


def by_line(
    reader: Reader, asked: Sequence[Followed], *, drift: bool = False
) -> dict[int, Likelihood]:
    return {one.line: one for batch in reader.likelihoods(asked, drift=drift) for one in batch}


@pytest.mark.parametrize("batch_logits", [1, 4000, 1 << 26], ids=lambda n: f"{n} logits a batch")
def test_likelihoods_and_drift_are_those_of_a_dense_computation(
    worn: Worn, batch_logits: int
) -> None:
    """In float64, one row at a time: log p of each token, and KL(chat || model) before it."""
    asked, reader = rows(), Reader(worn.switch, CONTEXT, batch_logits)
    worn.switch.wear(worn.adapter)
    found = by_line(reader, asked, drift=True)
    worn.model.double()
    ours = [worn.logs(worn.model, row) for row in asked]
    worn.switch.wear(None)
    chat = [worn.logs(worn.model, row) for row in asked]
    worn.model.float()
    for row, q, p in zip(asked, ours, chat, strict=True):
        one = found[row.prompt.line]
        wanted = [float(q[i, token]) for i, token in enumerate(row.ids)]
        assert one.log == pytest.approx(wanted, abs=CLOSE)
        assert one.mean == pytest.approx(sum(wanted) / len(wanted), abs=CLOSE)
        kl = (p.exp() * (p - q)).sum(1)
        assert one.drift == pytest.approx(kl.tolist(), abs=CLOSE)
        assert float(kl.max()) > 10 * CLOSE  # which is what is told apart


def test_drift_is_zero_for_the_chat_model_itself(worn: Worn) -> None:
    worn.switch.wear(None)
    found = by_line(Reader(worn.switch, CONTEXT), rows(), drift=True)
    assert {drift for one in found.values() for drift in one.drift or [1]} == {0.0}


def test_drift_is_not_computed_where_it_is_not_asked_for(llama: Worn) -> None:
    llama.switch.wear(llama.adapter)
    assert {one.drift for one in by_line(Reader(llama.switch, CONTEXT), rows()).values()} == {None}


def test_an_answer_is_read_as_far_as_the_model_can_see(worn: Worn) -> None:
    """What is beyond the context is left out, as generation leaves it out."""
    worn.switch.wear(None)
    whole = rows([(30, 9), (31, 2), (4, 28), (6, 3)])
    cut = [Followed(row.prompt, row.ids[: CONTEXT - len(row.prompt)]) for row in whole]
    reader = Reader(worn.switch, CONTEXT)
    found, wanted = by_line(reader, whole), by_line(reader, cut)
    assert [len(found[line].log) for line in (1, 2, 3, 4)] == [2, 1, 28, 3]
    assert found == wanted


def test_only_the_logits_that_are_needed_are_computed(llama: Worn) -> None:
    """A vocabulary is large, and prompts are long."""
    shapes: list[tuple[int, ...]] = []
    head = llama.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape)))
    llama.switch.wear(None)
    by_line(Reader(llama.switch, CONTEXT), rows([(20, 2), (21, 3)]))
    handle.remove()
    assert shapes == [(2, 5, len(LETTERS) + 22)]  # from the shorter prompt's last token on


def test_no_row_gives_no_batch(llama: Worn) -> None:
    assert list(Reader(llama.switch, CONTEXT).likelihoods([])) == []


# ----------------------------------------------------------------------------------- out of memory
def test_where_memory_is_too_small_batches_are_halved_for_good(tmp_path: Path) -> None:
    worn = Worn(tmp_path, "llama")
    asked, reader = rows([(9, 3)] * 16), Reader(worn.switch, CONTEXT)
    wanted = by_line(Reader(worn.switch, CONTEXT), asked)
    calls = short_of_memory(worn.model, 4)
    found = by_line(reader, asked)
    assert calls == [16, 8, 4, 4, 4, 4]
    for line, one in wanted.items():
        assert found[line].log == pytest.approx(one.log, abs=CLOSE)


def test_one_row_that_does_not_fit_fails_and_says_how_large_it_is(tmp_path: Path) -> None:
    worn = Worn(tmp_path, "llama")
    short_of_memory(worn.model, 0)
    with pytest.raises(OutOfMemory, match=r"one prompt .*21 tokens"):
        by_line(Reader(worn.switch, CONTEXT), rows([(4, 3), (18, 3)]))
